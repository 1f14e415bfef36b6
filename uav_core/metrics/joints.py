"""Joints between parts that were computed separately: segments and decode groups.

A jump is the mean absolute difference of neighbouring frames across the joints, divided by that of
all other neighbours: 1.0 if no joint can be seen, 2.0 if the step is twice the usual.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ..errors import InputError
from ..sampling.segments import DECODE_GROUP, OVERLAP, SEGMENT_LENGTH, plan_groups, plan_segments
from .clips import check_clip, frame


def joint_borders(
    frames: int,
    length: int = SEGMENT_LENGTH,
    overlap: int = OVERLAP,
    group: int = DECODE_GROUP,
) -> tuple[int, ...]:
    """The frames at which segments or decode groups meet; a length or group of 0 leaves those out.

    Segments meet where one begins and where the one before it ends: between the two they are
    blended. The result is empty if the clip has no other frames to compare these with.
    """
    borders: set[int] = set()
    if length and frames:
        segments = plan_segments(frames, length, overlap)
        borders |= {segment.start for segment in segments[1:]}
        borders |= {segment.stop for segment in segments[:-1]}
    if group and frames:
        borders |= {part.start for part in plan_groups(frames, group)[1:]}
    return tuple(sorted(borders)) if len(borders) < frames - 1 else ()


def temporal_jump(frames: Tensor, borders: Collection[int]) -> float:
    """How many times more a clip (1,3,t,h,w) changes at `borders` than elsewhere.

    A border b lies between frames b - 1 and b, so 1 <= b < t. The result is 1.0 for a clip without
    any change, infinity for change at the borders alone. Raises InputError for borders outside the
    clip, no border, or nothing else to compare with.
    """
    check_clip(frames, least=2)
    t = frames.shape[2]
    changes = [(frame(frames, i) - frame(frames, i - 1)).abs().mean() for i in range(1, t)]
    return jump_across(torch.stack(changes), borders, "frame")


def jump_across(steps: Tensor, borders: Collection[int], what: str) -> float:
    """Mean of the steps to `borders` divided by the mean of all others; step i leads to i + 1.

    Errors are those of `temporal_jump`; `what` names a place in their messages.
    """
    places = sorted(set(borders))
    if not places or places[0] < 1 or places[-1] > len(steps):
        raise InputError(
            f"Borders at {what} {places}: expected numbers from 1 to {len(steps)}, the first "
            f"{what} after each joint."
        )
    chosen = torch.zeros(len(steps), dtype=torch.bool, device=steps.device)
    chosen[[place - 1 for place in places]] = True
    if chosen.all():
        raise InputError(
            f"Borders at every {what}: nothing is left to compare them with. Measure a clip with "
            "fewer joints."
        )
    across, elsewhere = float(steps[chosen].mean()), float(steps[~chosen].mean())
    if elsewhere == 0:
        return 1.0 if across == 0 else float("inf")
    return across / elsewhere
