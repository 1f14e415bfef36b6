"""Side data of pictures: their orientation, transparency, and HDR metadata."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import cos, radians, sin
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from torch import Tensor

log = logging.getLogger(__name__)

_SEI, _ALPHA_CHANNEL = 39, 165  # HEVC: the type of a unit with messages, and of one message


@dataclass(frozen=True)
class Orientation:
    """Transpose first, then mirror left-right (``flip_x``) and top-bottom (``flip_y``)."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    def apply(self, frame: Tensor) -> Tensor:
        """A frame (3, h, w) rotated and flipped."""
        if self.transpose:
            frame = frame.transpose(1, 2)
        flipped = [dim for dim, flip in ((1, self.flip_y), (2, self.flip_x)) if flip]
        return frame.flip(flipped).contiguous() if flipped else frame.contiguous()


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The orientation of a decoded frame, from its display matrix.

    Angles that are not multiples of 90 degrees are ignored, with a warning.
    """
    if is_slanted(frame):
        log.warning(
            "The video's rotation of %d degrees is ignored: only multiples of 90 are supported.",
            frame.rotation,
        )
        return Orientation()
    # A position (p, q) in the picture is shown at (a p + c q, b p + d q); y points down.
    a, b, c, d = _matrix(frame)
    return Orientation(False, a < 0, d < 0) if a else Orientation(True, c < 0, b < 0)


def is_slanted(frame: av.VideoFrame) -> bool:
    """Whether a decoded frame has a rotation that is not a multiple of 90 degrees."""
    a, b, c, d = _matrix(frame)
    return not ((a and d and not b and not c) or (b and c and not a and not d))


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The display matrix without translation; the identity if there is none."""
    side_data = _side_data(frame).get("DISPLAYMATRIX")
    if side_data is None:
        # Newer PyAV tells the rotation even of a picture whose side data it cannot list.
        angle = radians(getattr(frame, "rotation", 0))
        a, b = round(cos(angle) * 65536), round(-sin(angle) * 65536)
        return a, b, -b, a
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data))
    return a, b, c, d


def _side_data(picture: av.VideoFrame) -> Any:
    """The side data of a picture; nothing if one of its kinds, such as EXIF, is new to PyAV."""
    try:
        return picture.side_data
    except ValueError:
        return {}


def has_alpha(stream: VideoStream, packet: Packet, picture: av.VideoFrame) -> bool:
    """Whether a stream has transparency, in its pictures or in an extra layer.

    VP8 and VP9 in WebM, and HEVC, have it in an extra layer, which FFmpeg's own decoders do not
    see. GIF always decodes with alpha: there the first picture tells.

    Args:
        stream: the stream.
        packet: a packet that begins with a keyframe.
        picture: the first decoded picture.
    """
    if any(k.lower() == "alpha_mode" and v.strip() == "1" for k, v in stream.metadata.items()):
        return True
    codec = stream.codec_context.codec.canonical_name
    if codec == "hevc":
        return any(_is_alpha(unit) for unit in _units(stream, packet))
    there = any(component.is_alpha for component in picture.format.components)
    if there and codec == "gif":
        return bool(picture.to_ndarray(format="rgba")[..., 3].min() < 255)
    return there


def _units(stream: VideoStream, packet: Packet) -> Iterator[bytes]:
    """The NAL units of an HEVC stream's headers and of a packet, which is consumed."""
    made: list[Packet] = []
    with suppress(FFmpegError):  # of a damaged packet only the headers are known
        # The filter turns units with lengths, as in MP4, into units with start codes, and adds the
        # headers.
        made = BitStreamFilterContext("hevc_mp4toannexb", stream).filter(packet)
    for data in (stream.codec_context.extradata, *made):
        yield from bytes(data or b"").split(b"\0\0\1")[1:]


def _is_alpha(unit: bytes) -> bool:
    """Whether an HEVC unit says that another layer has the alpha of the pictures."""
    if len(unit) < 4 or unit[0] >> 1 & 63 != _SEI:
        return False
    at, end = 2, len(unit)
    while at + 2 <= end and unit[at] != 0x80:  # the end of the messages
        kind, at = _number(unit, at)
        size, at = _number(unit, at)
        if kind == _ALPHA_CHANNEL:
            return True
        at += size
    return False


def _number(unit: bytes, at: int) -> tuple[int, int]:
    """A number of an HEVC message, and the position after it."""
    value = 0
    while at < len(unit) and unit[at] == 255:
        value, at = value + 255, at + 1
    return value + (unit[at] if at < len(unit) else 0), at + 1


def kinds_of(picture: Any) -> tuple[str, ...]:
    """The kinds of side data of a picture, by FFmpeg's names."""
    # PyAV 19 iterates over the kinds, earlier versions over the data.
    return tuple(getattr(data, "type", data).name for data in _side_data(picture))


def mastering_display(picture: av.VideoFrame) -> str:
    """The display of an HDR master, in x265's form; "" if the file does not say.

    "G(x,y)B(x,y)R(x,y)WP(x,y)L(most,least)": primaries and white in 1/50000, light in 1/10000
    candela per square metre (SMPTE ST 2086).
    """
    data = _side_data(picture).get("MASTERING_DISPLAY_METADATA")
    if data is None or len(bytes(data)) < 88:
        return ""
    values = struct.unpack("=22i", bytes(data)[:88])
    if not all(values[20:]) or not all(values[1:20:2]):
        return ""
    rx, ry, gx, gy, bx, by, wx, wy = (
        round(50000 * n / d) for n, d in zip(values[0:16:2], values[1:16:2], strict=True)
    )
    least, most = (
        round(10000 * n / d) for n, d in zip(values[16:20:2], values[17:20:2], strict=True)
    )
    return f"G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({most},{least})"


def light_level(picture: av.VideoFrame) -> str:
    """Light of the brightest pixel and mean of the brightest frame, "1000,400"; "" if unknown."""
    data = _side_data(picture).get("CONTENT_LIGHT_LEVEL")
    if data is None or len(bytes(data)) < 8:
        return ""
    most, mean = struct.unpack("=2I", bytes(data)[:8])
    return f"{most},{mean}" if most or mean else ""


def in_units(mastering: str) -> str:
    """A ``mastering_display`` in SVT-AV1's form: with fractions and candela per square metre."""
    parts = []
    for part in mastering.rstrip(")").split(")"):
        name, values = part.split("(")
        unit = 10000 if name == "L" else 50000
        parts.append(f"{name}({','.join(f'{int(v) / unit:.5f}' for v in values.split(','))})")
    return "".join(parts)
