"""Where weight files are looked for, and what the loaders list."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import folder_paths

from ...uav_core.errors import InputError
from ...uav_core.weights import included
from ...uav_core.weights.checkpoints import Kind
from ...uav_core.weights.headers import fits, may_be_ours, read_header
from ...uav_core.weights.included import MARK
from ...uav_core.weights.survey import EXTENSIONS, OWN


@dataclass(frozen=True)
class Taken:
    """What a loader takes from one of ComfyUI's folders, and from ours."""

    kinds: tuple[Kind, ...]
    hints: tuple[str, ...]
    """Parts of file names that mark a file as likely the right one."""
    included: tuple[str, ...] = ()
    """Names of the included weights. They have no extension, so no user's file can share one."""
    inside: tuple[str, ...] = ()
    """File names; a sub-folder of our folder is listed if it holds one of them."""


TAKEN = {
    "diffusion_models": Taken((Kind.UNET,), ("unet_video", "uav_unet"), (included.UNET,)),
    "vae": Taken(
        (Kind.VAE_3D, Kind.VAE_VIDEO),
        ("vae_video", "vae_3d"),
        (included.VAE_VIDEO, included.VAE_3D),
    ),
    "text_encoders": Taken(
        (Kind.TEXT_ENCODER, Kind.QUALITY_TEXT),
        ("uav_text", "text_encoder"),
        (included.TEXT,),
        ("model.safetensors", "pytorch_model.bin"),
    ),
    "optical_flow": Taken((Kind.RAFT, Kind.RAFT_TORCHVISION), ("raft",)),
}

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SAMPLES = {
    "upscale_a_video_sample.mp4": ASSETS / "sample.mp4",
    "upscale_a_video_sample.png": ASSETS / "sample.png",
}
"""Inputs of the shipped workflows, by their names in ComfyUI's input folder."""

log = logging.getLogger(__name__)


def place_samples() -> None:
    """Copy the sample clip and picture (50 KB) into ComfyUI's input folder, unless they are there.

    'Load Video' and 'Load Image' list no other folder, and ComfyUI refuses a workflow whose input
    file is missing.
    """
    for name, source in SAMPLES.items():
        target = Path(folder_paths.get_input_directory()) / name
        try:
            if not target.exists():
                shutil.copyfile(source, target)
        except OSError as error:
            log.info("The sample could not be copied to %s: %s", target, error)


def register_folders() -> None:
    """Make ``models/upscale_a_video`` and ``models/optical_flow`` known to ComfyUI.

    Extra model paths configured by the user are kept.
    """
    for name in (OWN, "optical_flow"):
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        paths, extensions = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(extensions) | EXTENSIONS)


def choices(native: str) -> list[str]:
    """Entries of the loader of ComfyUI's folder ``native``: included weights, folders, then files.

    Files of our folder and of ``native`` are listed by their content, not by their name. Files
    with likely names come first, so that the default is one of them.
    """
    taken = TAKEN[native]

    def hinted(name: str) -> bool:
        return any(hint in name.lower() for hint in taken.hints)

    names = [
        name
        for folder in (OWN, native)
        for name in folder_paths.get_filename_list(folder)
        if (path := folder_paths.get_full_path(folder, name)) is not None
        and _listed(path, native, folder == OWN or hinted(name))
    ]
    names = sorted(dict.fromkeys(names), key=lambda name: not hinted(name))
    return [*(name + MARK for name in taken.included), *folders(native), *names]


def preferred(native: str, *, surely: bool = False) -> str | None:
    """The user's entry of a loader to take if nobody chose one; None if there is none.

    A whole file that fits goes before a damaged one, that before one of unknown kind, and
    vae_video, which decodes with the low-resolution frames, before vae_3d. ``surely``: none of
    unknown kind.
    """
    ranks = {}
    for name in choices(native):
        if not name.endswith(MARK):
            with opened(name, native) as path:
                ranks[name] = (_misfit(path, native), read_header(path).kind is Kind.VAE_3D)
    fitting = [name for name, (misfit, _) in ranks.items() if misfit < UNFIT or not surely]
    return min(fitting, key=ranks.__getitem__, default=None)


UNFIT = 2


def _misfit(path: str, native: str) -> int:
    """0 for a whole file that a loader takes, 1 for a damaged one, UNFIT for any other."""
    header = read_header(path)
    return bool(header.fault) if fits(header, TAKEN[native].kinds) else UNFIT


def _listed(path: str, native: str, likely: bool) -> bool:
    """Whether a loader lists a file: it fits, or it is ``likely`` and of unknown kind.

    A damaged file with a likely name is listed, so that the loader can say what is wrong with it.
    """
    # Reading headers is slow; this check rules out nearly all other models without it.
    if not (likely or may_be_ours(path)):
        return False
    header = read_header(path)
    if header.kind in (None, Kind.UNKNOWN):
        return likely
    return fits(header, TAKEN[native].kinds)


@contextmanager
def opened(name: str, native: str) -> Iterator[str]:
    """Full path of a dropdown entry; errors on an included file say how to repair it."""
    stem, taken = name.removesuffix(MARK), TAKEN[native]
    if name.endswith(MARK) and stem in taken.included:
        path = included.path_of(stem)
        with included.repairable(path):
            yield str(path)
    elif taken.inside and name.endswith("/"):
        yield resolve_folder(name, native)
    else:
        yield resolve(name, native)


def resolve(name: str, native: str) -> str:
    """Full path of a file that ``choices`` listed; InputError if it has gone.

    If both folders have a file of this name, the one that fits best is taken, ours first.
    """
    paths = []
    for folder in (OWN, native):
        # ComfyUI 0.3.75 accepts any text as a dropdown entry, so open only listed files.
        listed = name in folder_paths.get_filename_list(folder)
        if listed and (path := folder_paths.get_full_path(folder, name)) is not None:
            paths.append(path)
    if paths:
        return min(paths, key=lambda path: _misfit(path, native))
    raise InputError(
        f"'{name}' is not in models/{OWN} or models/{native}. Press R to refresh the list, and "
        "choose another file."
    )


def folders(native: str) -> dict[str, list[str]]:
    """Sub-folders of our folder, ending in '/', that a loader lists, each with the files for it."""
    found: dict[str, list[str]] = {}
    inside = TAKEN[native].inside
    for base in map(Path, folder_paths.get_folder_paths(OWN)) if inside else ():
        for file in sorted(base.rglob("*")) if base.is_dir() else ():
            if file.name not in inside or file.parent == base or not file.is_file():
                continue
            if _listed(str(file), native, True):  # other models have files of these names too
                name = file.parent.relative_to(base).as_posix() + "/"
                found.setdefault(name, []).append(str(file))
    return found


def resolve_folder(name: str, native: str) -> str:
    """Path of the file that fits best in a folder that ``folders`` listed; InputError if gone."""
    paths = folders(native).get(name)
    if paths:
        return min(paths, key=lambda path: _misfit(path, native))
    raise InputError(
        f"The folder '{name}' no longer contains {' or '.join(TAKEN[native].inside)}. Press R to "
        "refresh the list, and choose another entry."
    )
