"""Colour of video files: the tags, and conversion of pictures to RGB tensors and back.

Only range and matrix are converted. Primaries and transfer stay as they are and keep their tags.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, VideoReformatter
from torch import Tensor

from ..values import in_range

log = logging.getLogger(__name__)

UNKNOWN = "unknown"


def _numbers(names: str) -> dict[str, int]:
    """Each name with its position, which is its number in ITU-T H.273, as every format uses it."""
    return {name: number for number, name in enumerate(names.split()) if name != "-"}


MATRICES = _numbers("rgb bt709 unknown - fcc bt470bg smpte170m smpte240m ycgco bt2020nc bt2020c")
PRIMARIES = _numbers(
    "- bt709 unknown - bt470m bt470bg smpte170m smpte240m film bt2020 smpte428 smpte431 smpte432 "
    "- - - - - - - - - ebu3213"
)
TRANSFERS = _numbers(
    "- bt709 unknown - gamma22 gamma28 smpte170m smpte240m linear log100 log316 iec61966-2-4 "
    "bt1361e iec61966-2-1 bt2020-10 bt2020-12 smpte2084 smpte428 arib-std-b67"
)
RANGES = {UNKNOWN: 0, "limited": 1, "full": 2}

# swscale's own numbers of the matrices it can convert.
_SWS_MATRICES = {
    "bt709": 1,
    "fcc": 4,
    "bt470bg": 5,
    "smpte170m": 5,
    "smpte240m": 7,
    "bt2020nc": 9,
    "bt2020c": 9,
}
# Bicubic, full chroma in and out, accurate rounding, bit-exact: swscale's own flags, which PyAV
# before 17 has no names for.
_EXACT = 0x4 | 0x2000 | 0x4000 | 0x40000 | 0x80000
# swscale's 16-bit RGB has white at 255 << 8, not at 65535.
_SWS_WHITE = 255 << 8
_GBR_FLOAT = re.compile("gbra?pf(16|32)le$")


@dataclass(frozen=True)
class Color:
    """The colour tags of a stream, by FFmpeg's names; "unknown" where the file has none."""

    range: str = "limited"
    matrix: str = "bt709"
    primaries: str = "bt709"
    transfer: str = "bt709"


BT709 = Color()


def _name(names: dict[str, int], number: int) -> str:
    return next((name for name, n in names.items() if n == int(number)), UNKNOWN)


def color_of(context: av.VideoCodecContext) -> Color:
    """The tags of an opened decoder."""
    return Color(
        _name(RANGES, context.color_range),
        _name(MATRICES, context.colorspace),
        _name(PRIMARIES, context.color_primaries),
        _name(TRANSFERS, context.color_trc),
    )


def output_color(source: Color, *, keep_range: bool = False) -> Color:
    """The tags to write for frames that were read from ``source``.

    Range: limited, or full if the source has it and ``keep_range``. Matrix: BT.709, or BT.2020 for
    a BT.2020 source. Primaries and transfer are the source's, or BT.709 if it has no tags.
    """
    wide = source.matrix.startswith("bt2020")
    return Color(
        "full" if keep_range and source.range == "full" else "limited",
        "bt2020nc" if wide else "bt709",
        "bt709" if source.primaries == UNKNOWN else source.primaries,
        "bt709" if source.transfer == UNKNOWN else source.transfer,
    )


def guess_matrix(color: Color, width: int, height: int) -> str:
    """The matrix to read with: the tag, or what players assume for the size if there is none."""
    if color.matrix in _SWS_MATRICES:
        return color.matrix
    return "bt709" if width >= 1280 or height > 576 else "smpte170m"


def depth(pixel_format: str) -> int:
    """Bits per channel of a pixel format."""
    return max(c.bits for c in av.VideoFormat(pixel_format).components)


def is_float(pixel_format: str) -> bool:
    """Whether the values of a pixel format are floating-point numbers."""
    return re.search("f(16|32)(le|be)?$", pixel_format) is not None


def _planes(frame: av.VideoFrame, dtype: np.typing.DTypeLike) -> list[np.ndarray]:
    """Writable views (h, w) of the planes of a picture without chroma subsampling."""
    h, w = frame.height, frame.width
    planes: Any = frame.planes  # buffers, which their type does not say
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size).view(dtype)[:h, :w]
        for plane in planes
    ]


def _picture(name: str, values: np.ndarray) -> av.VideoFrame:
    """A planar picture of values (c, h, w): RGB, which FFmpeg stores as G, B, R, or gray."""
    picture = av.VideoFrame(values.shape[2], values.shape[1], name)
    order = (1, 2, 0) if len(values) == 3 else (0,)
    for plane, channel in zip(_planes(picture, values.dtype), order, strict=True):
        plane[...] = values[channel]
    return picture


def floats(frame: av.VideoFrame) -> Tensor:
    """The unchanged values (3, h, w) of a planar floating-point picture, RGB or gray."""
    found = _planes(frame, np.float16 if "f16" in frame.format.name else np.float32)
    g, b, r = found[:3] if len(found) > 2 else found[:1] * 3
    return torch.from_numpy(np.stack((r, g, b)).astype(np.float32))


class ToRGB:
    """Converts decoded pictures to (3, h, w) float32 in [-1, 1].

    Pictures of more than 8 bits go through 16-bit RGB. Alpha is dropped. Pictures of another size
    than ``size`` are scaled to it, as players do.

    Args:
        color: the stream's tags.
        size: (width, height) as coded.
    """

    def __init__(self, color: Color, size: tuple[int, int]) -> None:
        self._color, self._size, self._said = color, size, False
        self._reformatter = VideoReformatter()

    def _say_once(self, *words: Any) -> None:
        if not self._said:
            log.warning(*words)
        self._said = True

    def __call__(self, frame: av.VideoFrame, number: int = 0) -> Tensor:
        """Convert one picture; ``number`` is for messages.

        Raises InputError for floating-point pictures with values that ``in_range`` refuses.
        """
        source, (width, height) = frame.format, self._size
        if is_float(source.name):
            if (frame.width, frame.height) != self._size or not _GBR_FLOAT.match(source.name):
                # Goes through 16 bits, so that values outside of 0 to 1 are lost.
                frame = self._reformatter.reformat(frame, width, height, "gbrpf32le")
            pixels = floats(frame)[None]
            return in_range(pixels, "video", first=number, say=self._say_once)[0].mul(2).sub_(1)
        full = self._color.range == "full" or source.name.startswith("yuvj")
        deep = depth(source.name) > 8
        rgb = self._reformatter.reformat(
            frame,
            width,
            height,
            "gbrp16le" if deep else "gbrp",
            src_colorspace=_SWS_MATRICES[guess_matrix(self._color, width, height)],
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            # Where both ranges are the same, PyAV before 17 leaves the matrix out as well.
            dst_color_range=ColorRange.UNSPECIFIED if full else ColorRange.JPEG,
            interpolation=_EXACT,
        )
        g, b, r = _planes(rgb, np.uint16 if deep else np.uint8)
        out = torch.from_numpy(np.stack((r, g, b)).astype(np.float32))
        white = _white(source, full) if deep else 255.0
        if source.name.startswith("gray") and self._color.range == "limited":
            # swscale assumes full range for every gray picture.
            out, white = out - white * 16 / 255, white * 219 / 255
        return out.mul_(2 / white).sub_(1).clamp_(-1, 1)


def _white(source: av.VideoFormat, full: bool) -> float:
    """White in swscale's 16-bit RGB: it shifts values of other depths instead of scaling them."""
    bits = depth(source.name)
    if source.is_rgb or full or source.name.startswith("gray"):
        return float(((1 << bits) - 1) << (16 - bits))
    return float(_SWS_WHITE)


class FromRGB:
    """Converts (3, h, w) in [-1, 1] to pictures of ``pixel_format``, tagged with ``color``."""

    def __init__(self, pixel_format: str, color: Color) -> None:
        self._format, self._color = pixel_format, color
        self._reformatter = VideoReformatter()

    def __call__(self, frame: Tensor) -> av.VideoFrame:
        """Convert one frame; values outside of the range are clamped."""
        bits, rgb = depth(self._format), av.VideoFormat(self._format).is_rgb
        # RGB is written as it is, YUV converted from 8 or 16 bits.
        white = (1 << bits) - 1 if rgb or bits == 8 else _SWS_WHITE
        planar = self._format.startswith("gbrp")
        name = self._format if planar else "gbrp" if bits == 8 else "gbrp16le"
        levels = frame.float().add(1).mul(white / 2).round().clamp(0, white).to(torch.int32)
        dtype = np.uint8 if bits == 8 else np.uint16
        picture = _picture(name, levels.cpu().numpy().astype(dtype))
        if rgb and not planar:
            picture = self._reformatter.reformat(picture, format=self._format)
        elif not rgb:
            full = self._color.range == "full"
            picture = self._reformatter.reformat(
                picture,
                format=self._format,
                dst_colorspace=_SWS_MATRICES[self._color.matrix],
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
                interpolation=_EXACT,
            )
        tag(picture, self._color, rgb)
        return picture


def from_floats(values: Tensor) -> av.VideoFrame:
    """A floating-point picture of unchanged values (3, h, w), or (1, h, w) for a gray one."""
    name = "gbrpf32le" if len(values) == 3 else "grayf32le"
    return _picture(name, values.float().cpu().numpy())


def gray16(values: Tensor) -> av.VideoFrame:
    """A 16-bit gray picture of values (1, h, w) in [0, 1], made without swscale, which rounds."""
    levels = values.float().mul(65535).round().clamp(0, 65535).to(torch.int32)
    return _picture("gray16be", levels.cpu().numpy().astype(">u2"))


def tag(target: Any, color: Color, rgb: bool) -> None:
    """Set the colour tags of an encoder's context, or of a picture: some encoders copy those."""
    target.color_range = RANGES["full" if rgb else color.range]
    target.colorspace = MATRICES["rgb" if rgb else color.matrix]
    if hasattr(target, "color_trc"):  # pictures have these since PyAV 17
        target.color_primaries = PRIMARIES[color.primaries]
        target.color_trc = TRANSFERS[color.transfer]
