"""The videos of a folder, and the file for the result of each."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError, InputError, UnsafePathError
from ..files import named_errors
from ..jobs import FOLDER
from ..paths import MOST_OUTPUT_BYTES, output_name
from ..video import UnreadableVideoError
from ..video.reading.probe import open_video

# An unreadable file with one of these extensions is a damaged video, not another kind of file.
# Any other file is a video if FFmpeg finds moving pictures in it.
VIDEOS = re.compile(
    "[.](3g[2p]|asf|avi|divx|dv|f4v|flv|gif|m2ts|m[24k]v|mod|mov|mp4|mpe?g|mts|mxf|nut|ogv|rm|rmvb|"
    "tod|ts|vob|webm|wmv|y4m)",
    re.IGNORECASE,
)
# FFmpeg's formats for single pictures; and for text that it draws and lists of other files.
_PICTURES = re.compile("image2.*|.*_pipe|ico|fits")
_OTHERS = {"tty": "text", "hls": "a playlist", "concat": "a playlist", "dash": "a playlist"}
# The brands of AVIF and HEIF, which FFmpeg reads as MP4. Of an animation its first track, which we
# would upscale, is a single picture as well.
_PHOTOS = ("avif", "avis", "heic", "heix", "mif1", "miaf")


@dataclass(frozen=True)
class FolderPlan:
    """The videos of a folder to upscale, and the entries left out."""

    videos: tuple[tuple[Path, Path], ...]
    """Each video with the file for its result."""
    left_out: tuple[tuple[Path, str], ...]
    """All other entries of the folder, each with the reason."""


def plan_folder(
    source: Path, target: Path, containers: tuple[str, ...], *, sub_folders: bool = False
) -> FolderPlan:
    """Examine every file of a folder, and plan where its result goes.

    Args:
        source: the folder.
        target: the folder for the results; if it is inside ``source``, it is skipped.
        containers: extensions for results: a video keeps its own if it is among them, otherwise it
            gets the first.
        sub_folders: whether sub-folders of ``source`` are included; their results go to sub-folders
            of the same names.

    Raises:
        InputError: ``target`` is ``source``.
        FileError: ``source`` cannot be read.
    """
    if os.path.realpath(source) == os.path.realpath(target):
        raise InputError(
            f"'{source}' is both the input and the output folder: expected another folder for the "
            "results."
        )
    found: list[Path] = []
    left_out: list[tuple[Path, str]] = []
    for path, why in _walk(source, os.path.realpath(target), sub_folders):
        why = why or _no_video(path)
        if why:
            left_out.append((path, why))
        else:
            found.append(path)
    targets = _targets([path.relative_to(source) for path in found], containers)
    videos = zip(found, (target / name for name in targets), strict=True)
    return FolderPlan(tuple(videos), tuple(left_out))


def job_folders(target: Path, *, sub_folders: bool = False) -> list[Path]:
    """The folders of jobs with results in ``target``, and in its sub-folders if asked for.

    Raises InputError if there is no such folder.
    """
    if not target.is_dir():
        raise InputError(f"'{target}' is not a folder: expected one with results.")
    found = [target / FOLDER]
    for folder, names, _ in os.walk(target) if sub_folders else ():
        if FOLDER in names:
            names.remove(FOLDER)
            found.append(Path(folder, FOLDER))
    return list(dict.fromkeys(found))


def _walk(folder: Path, but: str, deep: bool) -> Iterator[tuple[Path, str]]:
    """The entries of a folder in order, each with why it is left out; "" for possible videos."""
    with named_errors(folder, "reading"):
        entries = sorted(folder.iterdir())
    for path in entries:
        if path.name == FOLDER or os.path.realpath(path) == but:
            continue  # made by this command
        if path.name.startswith("._"):
            yield path, "a companion file of macOS"
        elif path.name.startswith("."):
            yield path, "hidden"
        elif path.is_dir():
            if deep and not path.is_symlink():
                try:
                    inside = list(_walk(path, but, deep))
                except FileError as error:  # a drive's own folders may be closed to its users
                    inside = [(path, str(error))]
                yield from inside
            else:
                why = "a link to a folder" if deep else "a folder; use --sub-folders to include it"
                yield path, why
        else:
            yield path, "" if path.is_file() else "not a regular file"


def _no_video(path: Path) -> str:
    """Why a file is not a video; "" if it is one."""
    try:
        with open_video(path) as (container, _):
            name, brand = container.format.name, container.metadata.get("major_brand")
    except UnreadableVideoError:
        return "" if VIDEOS.fullmatch(path.suffix) else "not a video"
    if _PICTURES.fullmatch(name) or brand in _PHOTOS:
        return "a single picture"
    return _OTHERS.get(name, "")


def _targets(sources: list[Path], containers: tuple[str, ...]) -> list[Path]:
    """A path for the result of each source, no two alike on any system."""

    def name(path: Path, number: int = 0) -> Path:
        own = path.suffix.lower()
        more = (f"_{path.suffix[1:]}" if number else "") + (f"_{number}" if number > 1 else "")
        ending = own if own in containers else containers[0]
        return Path(*map(_usable_name, path.with_name(f"{path.stem}{more}{ending}").parts))

    plain = {path: _key(name(path)) for path in sources}
    wanted, taken = Counter(plain.values()), set[str]()
    names: dict[Path, Path] = {}
    for path, key in plain.items():
        # Of several sources with one result name, only one that keeps its extension gets it.
        alone = wanted[key] == 1
        if alone or (path.suffix.lower() in containers and key not in taken):
            names[path] = name(path)
            taken.add(key)
    for path in sources:
        number = 1
        while path not in names:
            if _key(name(path, number)) not in taken:
                names[path] = name(path, number)
                taken.add(_key(names[path]))
            number += 1
    return [names[path] for path in sources]


def _key(path: Path) -> str:
    """A key that is equal for paths that name the same file on some system."""
    return path.as_posix().casefold()


def _usable_name(name: str) -> str:
    """A name of a file or folder, with the fewest changes that make it valid on every system."""
    name = re.sub(r"[\\:\x00-\x1f\x7f\ud800-\udfff]", "_", name)
    stem, ending = os.path.splitext(name)
    room = MOST_OUTPUT_BYTES - len(ending.encode())
    name = (stem.encode()[:room].decode(errors="ignore") + ending).rstrip(". ")
    try:
        return output_name(name)
    except UnsafePathError:  # a device of Windows
        return f"_{name}"
