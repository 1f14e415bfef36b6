"""Helpers of all measures: checks of clips, and single frames of them."""

from __future__ import annotations

from torch import Tensor

from ..errors import InputError


def check_clip(frames: Tensor, least: int = 1, what: str = "clip") -> None:
    """Raise InputError unless `frames` is (1,3,t,h,w) with at least `least` frames."""
    if frames.ndim != 5 or frames.shape[:2] != (1, 3) or frames.shape[2] < least:
        raise InputError(
            f"The {what} is {tuple(frames.shape)}: expected (1, 3, t, h, w) with at least {least} "
            f"frame{'s' * (least != 1)}."
        )


def check_alike(frames: Tensor, reference: Tensor) -> None:
    """Raise InputError unless two clips have the same length and size."""
    check_clip(frames)
    check_clip(reference, what="reference")
    if frames.shape != reference.shape:
        (t, h, w), (t0, h0, w0) = frames.shape[2:], reference.shape[2:]
        raise InputError(
            f"The clip has {t} frames of {w}x{h}, the reference {t0} of {w0}x{h0}: expected the "
            "same. Resize or trim one of them."
        )


def frame(frames: Tensor, index: int) -> Tensor:
    """Frame `index` as (1,3,h,w) fp32 in [0, 1]."""
    return frames[:, :, index].float().add(1).div(2).clamp(0, 1)
