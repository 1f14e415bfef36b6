"""What a clip looks like: its detail, and one line of it through time."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .clips import check_clip, frame


def detail(frames: Tensor) -> float:
    """Mean length of the brightness's slope in a clip (1,3,t,h,w), in [0, 1] a pixel.

    Nothing to be maximised: noise has much of it. Next to a low warping error it tells a steady
    clip from a blurred one.
    """
    check_clip(frames)
    values = []
    for i in range(frames.shape[2]):
        grey = frame(frames, i).mean(dim=1)
        across, down = grey.diff(dim=-1)[:, :-1], grey.diff(dim=-2)[:, :, :-1]
        values.append((across.square() + down.square()).sqrt().mean())
    return float(torch.stack(values).mean())


def temporal_profile(frames: Tensor, row: int | None = None, column: int | None = None) -> Tensor:
    """One line of every frame, side by side: flicker shows as stripes, motion as slopes.

    frames (1,3,t,h,w), any range. A `row` gives an x-t picture (3,t,w), time downwards; a `column`
    a y-t picture (3,h,t), time to the right. Raises InputError unless just one is given, inside.
    """
    check_clip(frames)
    if (row is None) == (column is None):
        raise InputError("A temporal profile is of one row or one column: give one of the two.")
    h, w = frames.shape[-2:]
    what, place, size = ("row", row, h) if row is not None else ("column", column, w)
    if place is None or not 0 <= place < size:
        raise InputError(f"Profile of {what} {place}: expected 0 to {size - 1}.")
    return frames[0, :, :, place] if what == "row" else frames[0, :, :, :, place].movedim(1, 2)
