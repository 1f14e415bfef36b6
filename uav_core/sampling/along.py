"""Mattes and depth enlarged in step with an upscaled picture: along its edges and its motion.

A frame's values are mixed with those of its neighbours where the motion leads to the same object:
the flows there and back agree, and so do the colours of the large picture. Only fine detail is
mixed. Coarse values stay the frame's own, so that fades and changing depth do not lag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..flow.estimate import SMALLEST_SIDE, stretch_flow
from ..flow.warp import inside, warp
from ..frames.guided import crisp, enlarged, window_mean, within
from .propagation import PairMotion, PropagationParams, TrustedFlow

ALIKE = 0.1
"""Colours that differ by less (in a range of 2) count as the same object."""

Flow = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""flow(earlier, later): the forward and backward flow of pictures (1, 3, h, w) in [-1, 1]."""


@dataclass(frozen=True)
class _Frame:
    small: Tensor
    guide: Tensor
    large: Tensor


def seen(guides: Tensor, small: tuple[int, int]) -> Tensor:
    """Pictures (n, 3, h2, w2) resized to ``small`` (h, w), or to the least size a flow takes."""
    h, w = (max(side, SMALLEST_SIDE) for side in small)
    return F.interpolate(guides, (h, w), mode="area")


def check_along(small: tuple[int, int, int], frames: tuple[int, int, int], what: str) -> None:
    """Check that values belong to a picture, by the (t, h, w) of both.

    Raises InputError for another number of frames, another aspect, or values of a larger size.
    """
    (count, h, w), (t, rows, columns) = small, frames
    if count != t:
        raise InputError(
            f"{what} has {count} frames, but the video has {t}: expected the same number."
        )
    if h > rows or w > columns:
        raise InputError(
            f"{what} is {w}x{h}, but the video is {columns}x{rows}: expected a size that is not "
            "larger than the video's."
        )
    # Rounding to whole pixels, at either size, may change a side by one.
    if abs(h - w * rows / columns) > 1 and abs(w - h * columns / rows) > 1:
        raise InputError(
            f"{what} is {w}x{h}, but the video is {columns}x{rows}: expected the same aspect "
            "ratio. Crop or pad both in the same way."
        )


def enlarged_along(
    small: Iterable[Tensor], guides: Iterable[Tensor], flow: Flow
) -> Iterator[Tensor]:
    """A clip of values at the size of the picture they belong to, frame by frame.

    At most three frames are held, so that memory does not grow with the clip.

    Args:
        small: each (c, h, w), of any range.
        guides: the upscaled picture, each (3, h2, w2) in [-1, 1]; as many as ``small``.
        flow: called for every pair of neighbours, in order.

    Returns:
        Each (c, h2, w2), on the device of the guide. Every value lies within the range of the
        nearby small values of its frame; binary mattes have edges of about one pixel.

    Raises:
        InputError: NaN or infinity, with the number of the frame; clips of different lengths.
    """
    frames = _frames(small, guides)
    before: tuple[_Frame, TrustedFlow] | None = None
    now = next(frames, None)
    while now is not None:
        after = next(frames, None)
        neighbours = [] if before is None else [before]
        before = None
        if after is not None:
            size = now.small.shape[-2], now.small.shape[-1]
            forward, backward = flow(seen(now.guide, size), seen(after.guide, size))
            motion = PairMotion.of(
                forward.to(now.guide), backward.to(now.guide), PropagationParams()
            )
            neighbours.append((after, motion.ahead))
            before = now, motion.back
        yield crisp(_steadied(now, neighbours), now.small)[0]
        now = after


def _frames(small: Iterable[Tensor], guides: Iterable[Tensor]) -> Iterator[_Frame]:
    own, pictures = iter(small), iter(guides)
    number = -1
    for number, guide in enumerate(pictures):
        values = next(own, None)
        if values is None:
            raise InputError(
                f"The video has more frames than the matte or depth clip, which has {number}: "
                "expected the same number."
            )
        if not values.isfinite().all():
            raise InputError(
                f"Frame {number} of the matte or depth clip has NaN or infinity: expected finite "
                "numbers. Create it again."
            )
        values, guide = values[None].to(guide.device, torch.float32), guide[None].float()
        yield _Frame(values, guide, enlarged(values, guide))
    if next(own, None) is not None:
        raise InputError(
            f"The video has only {number + 1} frames, but the matte or depth clip has more: "
            "expected the same number."
        )


def _steadied(frame: _Frame, neighbours: list[tuple[_Frame, TrustedFlow]]) -> Tensor:
    """The frame's enlarged values, mixed with those of its neighbours."""
    size = frame.guide.shape[-2:]
    total, weights = frame.large, torch.ones_like(frame.guide[:, :1])
    for other, way in neighbours:
        flow = stretch_flow(way.flow, *size)
        trusted = F.interpolate(way.trusted.float(), size, mode="bilinear") * inside(flow)
        apart = warp(other.guide, flow, "bilinear", "border") - frame.guide
        trusted = trusted * torch.exp(-apart.square().sum(1, keepdim=True) / (2 * ALIKE**2))
        total = total + trusted * warp(other.large, flow, "bicubic", "border")
        weights = weights + trusted
    mixed = total / weights
    missing = frame.small - F.interpolate(mixed, frame.small.shape[-2:], mode="area")
    return within(mixed + F.interpolate(window_mean(missing), size, mode="bilinear"), frame.small)
