"""Numbered pictures, PNG or EXR, converted to a video of 16 bits and back.

EXR has linear light without an upper limit, which a network cannot take. It is therefore mapped by
the curve of ACEScct (Academy S-2016-001; the primaries stay): 0 to 222 become 0.07 to 1, in finer
steps than those of half floats. So values brighter than white are kept through all processing.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from av.error import FFmpegError
from torch import Tensor

from ..errors import InputError
from ..files import named_errors, write_whole
from .color import (
    BT709,
    Color,
    FromRGB,
    ToRGB,
    color_of,
    floats,
    from_floats,
    gray16,
    is_float,
)
from .errors import EncodeError, UnreadableVideoError
from .reading.reader import VideoReader
from .writing.choices import EncodeParams
from .writing.parts import encode_part

log = logging.getLogger(__name__)

PICTURES = (".png", ".exr")
_PATTERN = re.compile(r"(?P<begin>.*?)%0?(?P<digits>\d*)d(?P<ending>\.\w+)")
_NUMBERED = re.compile(r"(?P<begin>.*?)(?P<number>\d+)(?P<ending>\.\w+)")
# Constants of ACEScct: the end of its linear part, and that part's slope and offset.
_BREAK, _SLOPE, _BLACK = 0.0078125, 10.5402377416545, 0.0729055341958355
_OFFSET, _STOPS = 9.72, 17.52
BRIGHTEST = 2.0 ** (_STOPS - _OFFSET)
"""The most light that the curve holds; white is 1."""


def to_curve(light: Tensor) -> Tensor:
    """Linear light mapped to [0, 1]; values beyond the curve are clamped."""
    logarithm = (light.clamp(min=_BREAK).log2() + _OFFSET) / _STOPS
    return torch.where(light > _BREAK, logarithm, _SLOPE * light + _BLACK).clamp(0, 1)


def from_curve(value: Tensor) -> Tensor:
    """The reverse of ``to_curve``: linear light from [0, 1]."""
    edge = _SLOPE * _BREAK + _BLACK
    return torch.where(
        value > edge, torch.exp2(value * _STOPS - _OFFSET), (value - _BLACK) / _SLOPE
    )


@dataclass(frozen=True)
class Frames:
    """Numbered files of one name."""

    folder: Path
    begin: str
    digits: int
    ending: str
    numbers: range = range(0)
    """The numbers of existing files; empty if not looked for."""

    @classmethod
    def named(cls, path: Path) -> Frames | None:
        """The files meant by a path such as ``shot/frame.%04d.exr``; None for any other path."""
        found = _PATTERN.fullmatch(path.name)
        if found is None or found["ending"].lower() not in PICTURES:
            return None
        return cls(path.parent, found["begin"], int(found["digits"] or 1), found["ending"])

    def paths(self) -> list[Path]:
        """The existing files, in order."""
        return [self.path(number) for number in self.numbers]

    @classmethod
    def there(cls, path: Path) -> Frames | None:
        """The existing files of a path with %d in its name, or of a folder with nothing else.

        None for anything else. Raises InputError if a number is missing among them.
        """
        named = cls.named(path)
        if named is None and not path.is_dir():
            return None
        folder = path if named is None else named.folder
        with named_errors(folder, "reading"):
            names = [name for name in os.listdir(folder) if not name.startswith(".")]
        pattern = _NUMBERED if named is None else named._numbered()
        found = [match for name in names if (match := pattern.fullmatch(name))]
        if named is not None:
            if not found:
                raise InputError(
                    f"'{path}' matches no file: expected numbered pictures. Check the folder and "
                    "the file name."
                )
        elif len(found) < max(2, len(names)) or len({(m["begin"], m["ending"]) for m in found}) > 1:
            return None
        begin, ending = found[0]["begin"], found[0]["ending"]
        if ending.lower() not in PICTURES:
            return None
        numbers = sorted(int(m["number"]) for m in found)
        digits = min(len(m["number"]) for m in found)
        run = cls(folder, begin, digits, ending, range(numbers[0], numbers[-1] + 1))
        # Every number must give the name of a file: a name with other digits is of another run.
        for number in run.numbers:
            if not run.path(number).is_file():
                raise InputError(
                    f"'{run.path(number)}' is missing between {numbers[0]} and {numbers[-1]}: "
                    "render it again, or put the frames before and after it into separate folders."
                )
        return run

    def _numbered(self) -> re.Pattern[str]:
        """Matches their names; ``begin`` itself may end with a digit."""
        begin, ending = re.escape(self.begin), re.escape(self.ending)
        return re.compile(rf"(?P<begin>{begin})(?P<number>\d+)(?P<ending>{ending})")

    def path(self, number: int) -> Path:
        """The path of the file with this number."""
        return self.folder / f"{self.begin}{number:0{self.digits}d}{self.ending}"

    @property
    def linear(self) -> bool:
        """Whether they hold linear light."""
        return self.ending.lower() == ".exr"

    @property
    def master(self) -> Path:
        """The path of the video from which the files are written."""
        return self.folder / f"{self.begin.rstrip('._- ') or 'frames'}.mkv"


def gather(frames: Frames, video: Path, rate: Fraction) -> None:
    """Make a video of the files: FFV1 with 16 bits, lossless for PNG and half floats.

    The container is NUT, as Matroska counts milliseconds: frame i is shown at exactly i / ``rate``
    seconds.

    Raises UnreadableVideoError for a file that is not a picture, InputError for one of another
    size, DiskFullError and FileError for the video.
    """
    params = EncodeParams("ffv1", ".mkv", pixel_format="gbrp16le", rate=rate, bit_depth=16)
    encode_part(video, _values(frames), params, size_of(frames), container="nut")


def scatter(video: Path, frames: Frames, first: int) -> int:
    """Write the frames of a video as files from number ``first`` on, and return their count.

    PNG has 16 bits, EXR half floats. Each file appears once it is complete. Raises EncodeError,
    DiskFullError and FileError.
    """
    to_rgb48, count = FromRGB("rgb48be", BT709), 0
    for count, frame in enumerate(VideoReader(video), start=1):
        path = frames.path(first + count - 1)
        if frames.linear:
            # Rounded here, as the encoder would truncate.
            light = from_curve((frame.float() + 1) / 2).half().float()
            _save(path, from_floats(light), {"format": "half"})
        else:
            _save(path, to_rgb48(frame))
    return count


def _picture(path: Path) -> tuple[av.VideoFrame, Color]:
    try:
        # FFmpeg takes a relative path with a colon for an address.
        with av.open(os.path.abspath(path)) as container:
            picture = next(container.decode(video=0))
            return picture, color_of(container.streams.video[0].codec_context)
    except (FFmpegError, StopIteration, IndexError) as error:
        raise UnreadableVideoError(
            f"'{path}' is not a picture that FFmpeg can read ({error}): expected PNG, or EXR with "
            "channels R, G, B or Y, compressed with RLE, ZIP, PIZ, PXR24 or B44, or uncompressed."
        ) from error


def size_of(frames: Frames) -> tuple[int, int]:
    """(width, height) of the first file; UnreadableVideoError if it is not a picture."""
    first, _ = _picture(frames.path(frames.numbers[0]))
    return first.width, first.height


def numbers_of(frames: Frames) -> Iterator[Tensor]:
    """The values of each file, (c, h, w): unchanged from EXR, in [0, 1] from PNG; c is 1 for gray.

    Raises as ``gather``; InputError also for NaN or infinity.
    """
    for path, kind, values in _pictures(frames):
        if not is_float(kind):
            values = (values + 1) / 2
        elif not values.isfinite().all():
            raise InputError(
                f"'{path}' has NaN or infinity among its values: expected finite numbers. "
                "Render it again; for depth, set a maximum distance."
            )
        yield values[:1] if kind.startswith(("gray", "ya", "mono")) else values


def save_numbers(path: Path, values: Tensor) -> None:
    """Write one file of values as from ``numbers_of``: EXR with 32-bit floats, PNG with 16 bits.

    Raises EncodeError, DiskFullError and FileError.
    """
    if path.suffix.lower() == ".exr":
        _save(path, from_floats(values), {"format": "float"})
    elif len(values) == 1:
        _save(path, gray16(values))
    else:
        _save(path, FromRGB("rgb48be", BT709)(values * 2 - 1))


def _save(path: Path, picture: av.VideoFrame, options: dict[str, str] | None = None) -> None:
    try:
        data = encoded(picture, path.suffix[1:].lower(), options or {})
    except FFmpegError as error:
        raise EncodeError(f"'{path}' cannot be encoded: {error.strerror}.") from error
    write_whole(path, data)


def _pictures(frames: Frames) -> Iterator[tuple[Path, str, Tensor]]:
    """Each file's path, pixel format and values (3, h, w): unchanged from EXR, else in [-1, 1]."""
    (width, height), said = size_of(frames), False
    for path in map(frames.path, frames.numbers):
        picture, color = _picture(path)
        if (picture.width, picture.height) != (width, height):
            raise InputError(
                f"'{path}' is {picture.width}x{picture.height}: expected {width}x{height}, like "
                "the first of these frames."
            )
        if not said and any(component.is_alpha for component in picture.format.components):
            log.warning("'%s' and others: transparency is left out.", path)
            said = True
        kind = picture.format.name
        to_rgb = ToRGB(color, (width, height))
        yield path, kind, floats(picture) if is_float(kind) else to_rgb(picture)


def _values(frames: Frames) -> Iterator[Tensor]:
    """The frame (3, h, w) in [-1, 1] of each file."""
    said = False
    for path, kind, values in _pictures(frames):
        if not is_float(kind):
            yield values
            continue
        if values.isnan().any():
            raise InputError(
                f"'{path}' has NaN among its values: expected numbers. Render it again."
            )
        if not said and (values.min() < 0 or values.max() > BRIGHTEST):
            outside = f"values outside of 0 to {BRIGHTEST:.0f} are clipped."
            log.warning("'%s' and others: %s", path, outside)
            said = True
        yield to_curve(values) * 2 - 1


def encoded(picture: av.VideoFrame, codec: str, options: dict[str, str]) -> bytes:
    """The bytes of a file with this picture; ``codec`` is FFmpeg's name."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height = picture.width, picture.height
    context.pix_fmt, context.time_base = picture.format.name, Fraction(1, 25)
    context.options = options
    return b"".join(map(bytes, [*context.encode(picture), *context.encode(None)]))
