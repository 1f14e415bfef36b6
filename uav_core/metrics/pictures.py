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


def temporal_profile(frames: Tensor, row: int) -> Tensor:
    """One row of every frame, below each other: flicker shows as stripes, motion as slopes.

    frames (1,3,t,h,w), any range, give (3,t,w). Raises InputError for a row outside.
    """
    check_clip(frames)
    h = frames.shape[-2]
    if not 0 <= row < h:
        raise InputError(f"Profile of row {row}: expected 0 to {h - 1}.")
    return frames[0, :, :, row]
