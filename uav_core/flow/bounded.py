"""Optical flow of large frames in bounded memory.

RAFT correlates every position with every other at 1/8 of the size: at 1920x1080 one pair takes
5.6 GB, at 960x540 0.35 GB. A flow from tiles would lose all motion between them, so large frames
are shrunk instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..callbacks import Progress, ignore
from ..errors import InputError
from .estimate import ITERATIONS, SMALLEST_SIDE, NeighbourFlow, estimate_flows, stretch_flow


def bounded_size(h: int, w: int, longest_side: int | None) -> tuple[int, int]:
    """(h, w) shrunk, aspect kept, until the longer side has at most so many pixels.

    No side is shrunk below 16 px, the least the flow takes. None never shrinks. Raises InputError
    for a longest side under 16 px.
    """
    if longest_side is None or max(h, w) <= longest_side:
        return h, w
    if longest_side < SMALLEST_SIDE:
        raise InputError(
            f"Flow at a longest side of {longest_side} px: expected at least {SMALLEST_SIDE}."
        )
    scale = longest_side / max(h, w)
    return (
        max(min(h, SMALLEST_SIDE), round(h * scale)),
        max(min(w, SMALLEST_SIDE), round(w * scale)),
    )


def both_ways_bounded(
    flow: NeighbourFlow, a: Tensor, b: Tensor, longest_side: int | None
) -> Iterator[Tensor]:
    """``flow.both_ways(a, b)`` on frames shrunk to ``longest_side`` pixels.

    a, b: (n, 3, h, w) in [-1, 1]. Gives the flow from a to b, then the one back, each
    (n, 2, h, w) fp32, in pixels of (h, w): estimated small, enlarged, and its values scaled with
    it. Frames within the bound give the very same flow.

    What is lost when shrinking by s: things thinner than about s pixels move with what is behind
    them, the borders of moving things are drawn s pixels wide, and errors of the estimate grow s
    times. Fast motion is followed better, not worse. Raises InputError as ``estimate_flow``, and
    for a bound under 16 px.
    """
    h, w = a.shape[-2:]
    size = bounded_size(h, w, longest_side)
    if size == (h, w) or a.shape != b.shape:
        # Images that do not fit each other are for the flow to refuse.
        yield from flow.both_ways(a, b)
        return
    for way in flow.both_ways(_shrink(a, size), _shrink(b, size)):
        yield stretch_flow(way, h, w)


def estimate_flows_bounded(
    model: nn.Module,
    frames: Tensor,
    iterations: int = ITERATIONS,
    longest_side: int | None = None,
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> tuple[Tensor, Tensor]:
    """``uav_core.flow.estimate.estimate_flows``, shrunk as in ``both_ways_bounded``.

    frames (1, 3, t, h, w) in [-1, 1]. Returns (forward, backward), each (1, 2, t - 1, h, w) fp32
    in pixels of (h, w). Raises InputError.
    """
    h, w = frames.shape[-2:]
    size = bounded_size(h, w, longest_side)
    if size == (h, w) or frames.ndim != 5:
        return estimate_flows(model, frames, iterations, progress, check_cancelled)
    t = frames.shape[2]
    small = frames.new_empty((*frames.shape[:3], *size), dtype=torch.float32)
    for i in range(t):
        small[:, :, i] = _shrink(frames[:, :, i], size)
    flows = estimate_flows(model, small, iterations, progress, check_cancelled)
    large = frames.new_empty((2, 1, 2, t - 1, h, w), dtype=torch.float32)
    for direction, flow in enumerate(flows):
        for i in range(t - 1):
            large[direction, :, :, i] = stretch_flow(flow[:, :, i], h, w)
    return large[0], large[1]


def _shrink(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
