"""How a player turns a coded picture before it shows it."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass

import av
from torch import Tensor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orientation:
    """Transpose first, then mirror left-right (``flip_x``) and top-bottom (``flip_y``)."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def rotation(self) -> int:
        """Degrees clockwise: 0, 90, 180 or 270; a mirrored picture is mirrored left-right first."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    @property
    def mirrored(self) -> bool:
        """Whether writing reads backwards in the coded picture."""
        return self.transpose ^ self.flip_x ^ self.flip_y

    def apply(self, frame: Tensor) -> Tensor:
        """Turn (3, h, w)."""
        if self.transpose:
            frame = frame.transpose(1, 2)
        flipped = [dim for dim, flip in ((1, self.flip_y), (2, self.flip_x)) if flip]
        return frame.flip(flipped).contiguous() if flipped else frame.contiguous()


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """The orientation that a decoded frame carries (its display matrix).

    Angles that are no multiple of 90 degrees are left out, with a warning.
    """
    if is_slanted(frame):
        log.warning(
            "The picture is to be turned by %d degrees; only multiples of 90 are applied.",
            frame.rotation,
        )
        return Orientation()
    # A position (p, q) in the picture is shown at (a p + c q, b p + d q); y points down.
    a, b, c, d = _matrix(frame)
    return Orientation(False, a < 0, d < 0) if a else Orientation(True, c < 0, b < 0)


def is_slanted(frame: av.VideoFrame) -> bool:
    """Whether a decoded frame is to be turned by an angle that is no multiple of 90 degrees."""
    a, b, c, d = _matrix(frame)
    return not ((a and d and not b and not c) or (b and c and not a and not d))


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """The display matrix without what moves the picture; where there is none, it stays as it is."""
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data))
    return a, b, c, d
