"""A pack to train without network access: the media in small encodings, and held-out clips.

``python -m uav_core.training pack --data DATA --out FILE.tar``; unpacked, it is a data folder.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import tarfile
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from .sources import INDEX, SEGMENT

log = logging.getLogger(__name__)

PIECES, HELD_OUT = "pieces.json", "heldout.npz"
TOGETHER = 20
"""Pieces of video in one file; the files are decoded in parallel."""
PHOTO_QUALITY, VIDEO_CRF = 80, 23
SEEN_FRAMES, KEPT_FRAMES = 8, (2, 5)
"""Number of frames of a held-out clip that are upscaled, and indices of those compared."""


def is_unpacked(folder: Path) -> bool:
    """Whether a data folder is an unpacked pack."""
    return (folder / PIECES).is_file()


# ---------------------------------------------------------------- reading


def media(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Photographs (h, w, 3) and pieces of video (24, h, w, 3) of an unpacked pack, as uint8."""
    pieces: dict[str, list[str]] = json.loads((folder / PIECES).read_text("utf-8"))
    files = sorted(folder.glob("*.webp"))
    with ThreadPoolExecutor(16) as pool:
        videos = [pool.submit(_decoded, folder / f"{name}.mp4", pieces[name]) for name in pieces]
        photos = dict(zip((f.stem for f in files), pool.map(photo, files), strict=True))
        return photos, {name: piece for video in videos for name, piece in video.result()}


def photo(path: Path) -> np.ndarray:
    """A picture file as (h, w, 3) uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _decoded(path: Path, names: list[str]) -> list[tuple[str, np.ndarray]]:
    import av

    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    cut = [frames[SEGMENT * i : SEGMENT * (i + 1)] for i in range(len(names))]
    return [(name, np.stack(part)) for name, part in zip(names, cut, strict=True)]


def to_bytes(clip: Tensor) -> np.ndarray:
    """A clip (3, t, h, w) in [-1, 1] as (t, h, w, 3) uint8."""
    return clip.add(1).mul(127.5).round().byte().permute(1, 2, 3, 0).numpy()


@dataclass(frozen=True)
class HeldOut:
    """Held-out clips for evaluation in a run: all damaged ones, then the mild ones."""

    names: list[str]
    low: np.ndarray
    """Degraded clips (n, SEEN_FRAMES, h, w, 3), uint8."""
    clean: np.ndarray
    """Clean frames (m, len(KEPT_FRAMES), 4h, 4w, 3), uint8, shared by damaged and mild clips."""
    which: list[int]
    """For every degraded clip the index of its clean frames."""


def held_out(folder: Path, most: int | None = None) -> HeldOut:
    """The first ``most`` held-out clips, from an unpacked pack or from prepared data."""
    path = folder / HELD_OUT
    if most == 0:  # they may be missing, as in a folder of a user's own media
        none = np.empty((0, 1, 4, 4, 3), np.uint8)
        return HeldOut([], none, none, [])
    if path.is_file():
        with np.load(path) as kept:
            found = {name: kept[name] for name in kept.files}
        for name in ("low", "clean"):
            column = np.asarray(Image.open(io.BytesIO(found[name].tobytes())))
            found[name] = column.reshape(found[f"{name}_shape"])
    else:
        found = _held_out_arrays(folder)
    return HeldOut(
        [str(n) for n in found["names"]][:most],
        found["low"][:most],
        found["clean"],
        found["which"].tolist()[:most],
    )


@functools.cache
def _held_out_arrays(folder: Path) -> dict[str, np.ndarray]:
    from ..evaluate import low_resolution
    from .clips import HELD_OUT_MILD, held_out_mild
    from .clips import held_out as clips_of

    damaged, mild = clips_of(folder), held_out_mild(folder)
    names = [clip.name for clip in damaged]
    low = [
        to_bytes(low_resolution(clip, n)[0][:, :SEEN_FRAMES])
        for clips in (damaged, mild)
        for n, clip in enumerate(clips)
    ]
    return {
        "names": np.array([clip.name for clip in (*damaged, *mild)]),
        "low": np.stack(low),
        "clean": np.stack([to_bytes(clip.frames[:, list(KEPT_FRAMES)]) for clip in damaged]),
        "which": np.array([*range(len(damaged)), *map(names.index, HELD_OUT_MILD)]),
    }


# ---------------------------------------------------------------- writing


def write(data: Path, out: Path) -> int:
    """Write the pack of a prepared data folder. Returns its size in bytes."""
    from .clips import ClipSource, read_photo, read_video

    source = ClipSource(data)
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(out, "w") as tar:
        for name in source.photo_names:
            buffer = io.BytesIO()
            picture = Image.fromarray(read_photo(data, name))
            picture.save(buffer, "WEBP", quality=PHOTO_QUALITY, method=5)
            _add(tar, f"{name}.webp", buffer.getvalue())
        by_size: dict[tuple[int, ...], list[str]] = {}
        for name in source.video_names:
            by_size.setdefault(read_video(data, name).shape, []).append(name)
        pieces: dict[str, list[str]] = {}
        for names in by_size.values():
            for first in range(0, len(names), TOGETHER):
                film, part = f"film{len(pieces)}", names[first : first + TOGETHER]
                path = Path(scratch) / f"{film}.mp4"
                _encode(path, (frame for name in part for frame in read_video(data, name)))
                tar.add(path, path.name)
                pieces[film] = part
                log.info("%s: %d pieces, %.1f MB", film, len(part), path.stat().st_size / 1e6)
        _add(tar, PIECES, json.dumps(pieces).encode())
        # The index names the author and licence of every picture.
        _add(tar, INDEX, (data / INDEX).read_bytes())
        path = Path(scratch) / HELD_OUT
        write_held_out(path, _held_out_arrays(data))
        tar.add(path, path.name)
    return out.stat().st_size


def write_held_out(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays of ``HeldOut``; frames of one array are stacked as one lossless WebP."""
    kept = dict(arrays)
    for name in ("low", "clean"):
        frames, buffer = arrays[name], io.BytesIO()
        column = Image.fromarray(frames.reshape(-1, *frames.shape[-2:]))
        column.save(buffer, "WEBP", lossless=True, method=6)
        kept[name] = np.frombuffer(buffer.getvalue(), np.uint8)
        kept[f"{name}_shape"] = np.array(frames.shape)
    np.savez(path, **kept)  # type: ignore[arg-type]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _encode(path: Path, frames: Iterator[np.ndarray]) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = None
        for i, pixels in enumerate(frames):
            if stream is None:
                options = {"crf": str(VIDEO_CRF), "preset": "medium"}
                stream = container.add_stream("libx264", rate=25, options=options)
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
