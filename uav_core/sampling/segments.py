"""Plans of overlapping segments of a clip, and how their results are put together.

A plan is data: what to run, and with which weight. Source: the reference's loop over segments of
8 frames, 2 of them shared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from ..errors import InputError

SEGMENT_LENGTH = 8
OVERLAP = 2
DECODE_GROUP = 3


@dataclass(frozen=True)
class Segment:
    """Frames ``start`` to ``stop`` (exclusive) of one pass.

    ``weight`` is that of the new result on frames which an earlier pass has already covered; the
    earlier result keeps the rest. Frames covered for the first time take the new result whole.
    """

    start: int
    stop: int
    weight: float = 0.5


def plan_segments(
    frames: int, length: int = SEGMENT_LENGTH, overlap: int = OVERLAP
) -> tuple[Segment, ...]:
    """Segments that cover ``frames`` frames in order.

    Every segment has ``length`` frames (fewer only if the clip is shorter); one that would run
    past the end is moved back to end there. The reference runs the moved segment twice for some
    lengths, which repeats the same numbers: here it runs once and its weight makes up for it.

    Raises InputError for no frames, or an overlap not smaller than the length.
    """
    if frames < 1:
        raise InputError(f"A clip of {frames} frames: expected at least one.")
    if length < 1 or not 0 <= overlap < length:
        raise InputError(
            f"Segments of {length} frames with an overlap of {overlap}: expected a length of at "
            "least 1 and an overlap from 0 to length - 1."
        )
    if frames <= length:
        return (Segment(0, frames),)
    passes: dict[int, int] = {}
    for start in range(0, frames, length - overlap):
        start = min(start, frames - length)
        passes[start] = passes.get(start, 0) + 1
    return tuple(
        Segment(start, start + length, 1 - 0.5**repeats) for start, repeats in passes.items()
    )


def blend(total: Tensor, covered: int, segment: Segment, part: Tensor) -> Tensor:
    """Put the result of one segment into ``total`` (b c t h w, of the whole clip), in place.

    ``covered`` is the number of leading frames that earlier segments have filled.
    """
    shared = max(0, covered - segment.start)
    old = total[:, :, segment.start : segment.start + shared]
    old.lerp_(part[:, :, :shared], segment.weight)
    total[:, :, segment.start + shared : segment.stop] = part[:, :, shared:]
    return total


def combine(parts: Iterable[tuple[Segment, Tensor]], like: Tensor) -> Tensor:
    """Blend the segments' results, in order, into a tensor shaped like ``like``."""
    total, covered = like.new_empty(like.shape), 0
    for segment, part in parts:
        blend(total, covered, segment, part)
        covered = segment.stop
    return total


def plan_groups(frames: int, size: int = DECODE_GROUP) -> tuple[range, ...]:
    """Consecutive groups of ``size`` frames (the last may be shorter) for the VAE.

    Raises InputError for no frames or a size below 1.
    """
    if frames < 1 or size < 1:
        raise InputError(f"{frames} frames in groups of {size}: expected at least 1 of each.")
    return tuple(range(i, min(i + size, frames)) for i in range(0, frames, size))
