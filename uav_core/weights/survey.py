"""Searches model folders: which files of the release are there, and whether they are whole.

Files are recognised by their content, so renamed ones are found too.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..callbacks import ignore
from ..errors import CheckpointError
from ..files import BLOCK, hash_file
from . import included
from .checkpoints import Kind
from .convert import PARTS, Part
from .files import DAMAGED_ZIP, read_state_dict
from .hashes import known_hash, weights_hash
from .headers import WeightHeader, fits, read_header

OWN = "upscale_a_video"
EXTENSIONS = frozenset({".safetensors", ".sft", ".bin", ".pth", ".pt", ".ckpt"})
# Names that ComfyUI's folders had before; it still searches them.
_OLD_NAMES = {"diffusion_models": ("unet",), "text_encoders": ("clip",)}
SUMS = included.FOLDER / "SHA256SUMS"


@dataclass(frozen=True)
class WeightFile:
    """A file that was found. ``fault`` is empty if none was found, ``sha256`` if not computed."""

    path: Path
    header: WeightHeader = field(repr=False)
    bytes: int
    fault: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Survey:
    """The files found for every part of the release, the included weights, and other files.

    ``others`` are files in our folder that are not of the release.
    """

    parts: Mapping[Part, tuple[WeightFile, ...]]
    included: tuple[WeightFile, ...]
    others: tuple[WeightFile, ...]

    def has(self, *kinds: Kind) -> bool:
        """Whether there is a whole file for a part of one of these ``kinds``."""
        return any(
            not file.fault
            for part, files in self.parts.items()
            for file in files
            if part.kind in kinds
        )


def model_folders(*models: str | os.PathLike[str]) -> dict[str, list[Path]]:
    """The folders for our kinds of files inside ComfyUI's ``models`` folders, by name."""
    return {
        name: [Path(base) / each for base in models for each in (name, *_OLD_NAMES.get(name, ()))]
        for name in folder_names()
    }


def folder_names() -> tuple[str, ...]:
    """Names of our folder and of ComfyUI's folder for each kind of file."""
    return (OWN, *dict.fromkeys(part.target.split("/")[0] for part in PARTS))


def survey(
    folders: Mapping[str, Sequence[Path]],
    *,
    checksums: bool = True,
    progress: Callable[[int, int], None] = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> Survey:
    """Search model folders, given as ``model_folders`` returns them.

    With ``checksums`` every file of ours is read whole, and its SHA-256 is kept in our folder
    until the file changes; otherwise only headers are read. ``progress(done, total)`` counts bytes.
    """
    parts: dict[Part, list[WeightFile]] = {part: [] for part in PARTS}
    others: list[WeightFile] = []
    found = list(_candidates(folders))
    done, total = 0, sum(size for *_, size in found)

    def advance(read: int) -> None:
        nonlocal done
        done += read
        progress(min(done, total), total)

    cache = folders[OWN][0] if checksums else None
    for path, part, size in found:
        check_cancelled()
        end = done + size
        file = _examine(path, size, cache, advance, check_cancelled)
        (others if part is None else parts[part]).append(file)
        advance(end - done)  # bytes that were not read
    return Survey({part: tuple(files) for part, files in parts.items()}, _included(), tuple(others))


def _candidates(
    folders: Mapping[str, Sequence[Path]],
) -> Iterator[tuple[Path, Part | None, int]]:
    """Files of the release, and any other files in our folder; each once."""
    seen: set[str] = set()
    for name, bases in folders.items():
        for path in (path for base in bases for path in _files(base)):
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                part = part_of(path)
                if part is not None or name == OWN:
                    yield path, part, path.stat().st_size


def _files(base: Path) -> Iterator[Path]:
    # Links are followed, as ComfyUI does.
    for folder, subfolders, names in os.walk(base, followlinks=True):
        subfolders.sort()
        for path in (Path(folder, name) for name in sorted(names)):
            if path.suffix.lower() in EXTENSIONS and path.is_file():
                yield path


def part_of(path: Path) -> Part | None:
    """The part of the release that a file is, by its content, or by name if that does not tell."""
    header = read_header(path)
    if header.kind not in (None, Kind.UNKNOWN):
        return next((p for p in PARTS if fits(header, (p.kind, p.target_kind))), None)
    for part in PARTS:
        names = {Path(part.target).name, *(Path(source).name for source in part.sources)}
        # The text encoder has a very common file name, so its folder must fit as well.
        if path.name in names and (
            part.kind is not Kind.TEXT_ENCODER or path.parent.name.startswith("text_encoder")
        ):
            return part
    return None


def _examine(
    path: Path,
    size: int,
    cache: Path | None,
    advance: Callable[[int], None],
    check_cancelled: Callable[[], None],
) -> WeightFile:
    header = read_header(path)
    if header.kind is None or header.fault or cache is None:
        return WeightFile(path, header, size, header.fault)
    digest = known_hash(path, cache, "sha256")
    # Only whole files have a kept hash.
    if digest is None and (fault := _inner_fault(path, check_cancelled)):
        return WeightFile(path, header, size, fault)
    digest = digest or weights_hash(
        path, cache, algorithm="sha256", check_cancelled=check_cancelled, advance=advance
    )
    return WeightFile(path, header, size, "", digest)


def _inner_fault(path: Path, check_cancelled: Callable[[], None]) -> str:
    """Why a file whose header is whole cannot be read, or ""."""
    if not zipfile.is_zipfile(path):
        return _unreadable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    return "it is damaged or was packed again (PyTorch compresses nothing)"
                with archive.open(entry) as stored:
                    while stored.read(BLOCK):  # raises at the end if the checksum differs
                        check_cancelled()
    except DAMAGED_ZIP as error:
        return f"it is damaged ({str(error) or type(error).__name__})"
    return _unreadable(path)


def _unreadable(path: Path) -> str:
    try:
        read_state_dict(path)
    except CheckpointError as error:
        return str(error)
    return ""


def _included() -> tuple[WeightFile, ...]:
    """The included files, compared with the checksums that came with them."""
    sums: dict[str, str] = {}
    if SUMS.is_file():
        lines = (line.split(maxsplit=1) for line in SUMS.read_text("ascii").splitlines())
        sums = {name.lstrip("*"): digest for digest, name in lines}
    files = []
    for name in (included.UNET, included.VAE_VIDEO, included.VAE_3D, included.TEXT):
        path = included.path_of(name)
        header = read_header(path)
        if not path.is_file():
            files.append(WeightFile(path, header, 0, "it is missing"))
            continue
        digest = hash_file(os.path.realpath(path), algorithm="sha256")
        known = sums.get(path.name, digest)
        changed = "" if digest == known else "it was changed or damaged (its checksum differs)"
        fault = header.fault or changed
        files.append(WeightFile(path, header, path.stat().st_size, fault, digest))
    return tuple(files)
