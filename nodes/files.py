"""Where weight files are looked for, and what the loaders list."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..uav_core.errors import InputError

# Files may lie in a folder of our own (the release unpacked as it is) or in ComfyUI's.
OWN = "upscale_a_video"
EXTENSIONS = {".safetensors", ".bin", ".pth", ".pt", ".ckpt"}


def register_folders() -> None:
    """Make ``models/upscale_a_video`` and ``models/optical_flow`` known to ComfyUI.

    Extra model paths configured by the user are kept.
    """
    for name in (OWN, "optical_flow"):
        folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        paths, extensions = folder_paths.folder_names_and_paths[name]
        folder_paths.folder_names_and_paths[name] = (paths, set(extensions) | EXTENSIONS)


def choices(native: str, hints: tuple[str, ...]) -> list[str]:
    """File names for a dropdown, from our folder and ComfyUI's folder ``native``.

    Names with one of the ``hints`` in them come first, so that the first choice is a likely one.
    """
    names = [*folder_paths.get_filename_list(OWN), *folder_paths.get_filename_list(native)]
    return sorted(
        dict.fromkeys(names), key=lambda name: not any(hint in name.lower() for hint in hints)
    )


def resolve(name: str, native: str) -> str:
    """Full path of a dropdown entry; InputError if the file has gone."""
    for folder in (OWN, native):
        # ComfyUI 0.3.75 takes any text for a dropdown entry: only what was listed is opened.
        listed = name in folder_paths.get_filename_list(folder)
        if listed and (path := folder_paths.get_full_path(folder, name)) is not None:
            return path
    raise InputError(
        f"'{name}' is not in models/{OWN} or models/{native} any more. Press R to refresh the "
        "list, and choose another file."
    )


def folders_with(marker: tuple[str, ...]) -> list[str]:
    """Sub-folders of ours, ending in '/', that hold one of the ``marker`` files."""
    names = []
    for base in map(Path, folder_paths.get_folder_paths(OWN)):
        for file in sorted(base.rglob("*")) if base.is_dir() else ():
            if file.name in marker and file.parent != base:
                names.append(file.parent.relative_to(base).as_posix() + "/")
    return list(dict.fromkeys(names))


def resolve_folder(name: str, marker: tuple[str, ...]) -> str:
    """The ``marker`` file inside a folder that ``folders_with`` listed."""
    for base in map(Path, folder_paths.get_folder_paths(OWN)):
        for file in marker:
            path = (base / name / file).resolve()
            if path.is_file() and path.is_relative_to(base.resolve()):
                return str(path)
    raise InputError(f"'{name}' holds none of {', '.join(marker)} any more. Refresh the list.")
