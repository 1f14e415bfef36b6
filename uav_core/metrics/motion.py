"""The warping error: how much of the change from frame to frame is not motion.

E_warp of Lai et al. 2018 (arXiv 1808.00449), which Upscale-A-Video and later work on video
upscaling report, computed as in its released evaluation:

    E(i) = sum over pixels and channels of M (I_i - W(I_i+1, F))^2 / (3 sum of M)

on frames in [0, 1], where F is the flow from frame i to i + 1, W bilinear sampling at p + F(p),
and M is 1 where both frames show the same point; E_warp is the mean of E(i) over all pairs. Papers
print E*_warp = 1000 E_warp. F and M come from the ground truth if there is one, so that they do
not depend on the clip that is judged. M leaves out pixels where the flows there and back disagree,
pixels at motion boundaries (both as Ruder, Dosovitskiy & Brox 2016), and pixels that leave the
picture, for which Lai et al. repeat the border instead. Pairs without a visible pixel do not count.

A blurred clip scores low, and a frozen one lowest: read it next to a measure of detail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..callbacks import Progress, ignore
from ..errors import InputError
from ..flow.estimate import estimate_flows
from ..flow.warp import inside, warp
from .clips import check_clip, frame

# The thresholds of Ruder et al., each a share of the squared motion plus a constant: for the
# squared disagreement of the flows there and back, and for the squared gradient of the flow.
DISAGREEMENT = (0.01, 0.5)
BREAK = (0.01, 0.002)


@dataclass(frozen=True)
class Motion:
    """Where each frame's pixels are in the next frame."""

    flow: Tensor
    """(1, 2, t - 1, h, w) fp32, from frame i to i + 1, in pixels."""
    visible: Tensor
    """(1, 1, t - 1, h, w) bool: where the flow can be trusted and leads to the same point."""


def estimate_motion(
    model: nn.Module,
    reference: Tensor,
    longest_side: int | None = None,
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> Motion:
    """The motion in a reference clip (1,3,t,h,w) in [-1, 1], of two frames or more.

    `model` is what `uav_core.flow.estimate.estimate_flows` takes. Frames whose longer side is over
    `longest_side` pixels are shrunk to it and the flow is enlarged again, which takes less time
    and memory and loses the motion of the smallest things; None never shrinks. `progress` counts
    frame pairs, both directions. Raises InputError.
    """
    check_clip(reference, least=2, what="reference")
    forward, backward = estimate_flows(
        model,
        reference,
        longest_side=longest_side,
        progress=progress,
        check_cancelled=check_cancelled,
    )
    seen = torch.empty_like(forward[:, :1], dtype=torch.bool)
    for i in range(forward.shape[2]):
        seen[:, :, i] = visible(forward[:, :, i], backward[:, :, i])
    return Motion(forward, seen)


def visible(flow: Tensor, back: Tensor) -> Tensor:
    """(n,1,h,w) bool: where the first image's pixels can be seen in the second as well.

    flow (n,2,h,w) leads from the first image to the second, `back` the other way, in pixels.
    """
    returned = warp(back, flow, "bilinear")

    def squared(x: Tensor) -> Tensor:
        return x.square().sum(dim=1, keepdim=True)

    share, constant = DISAGREEMENT
    agree = squared(flow + returned) <= share * (squared(flow) + squared(returned)) + constant
    slopes = (F.pad(flow.diff(dim=-1), (0, 1)), F.pad(flow.diff(dim=-2), (0, 0, 0, 1)))
    share, constant = BREAK
    smooth = sum(map(squared, slopes)) <= share * squared(flow) + constant
    return agree & smooth & inside(flow)


def warping_error(
    frames: Tensor, motion: Motion, check_cancelled: Callable[[], None] = ignore
) -> float:
    """E_warp of a clip (1,3,t,h,w) in [-1, 1]; see the top of this file. NaN if nothing is visible.

    `motion` is that of a reference of the same length and size, or of the clip itself. White noise
    of variance v in every frame adds 2 v if the motion is by whole pixels.
    """
    check_clip(frames, least=2)
    expected = (motion.flow.shape[2] + 1, *motion.flow.shape[3:])
    if tuple(frames.shape[2:]) != expected:
        raise InputError(
            f"The clip is {tuple(frames.shape[2:])} (frames, height, width), but the motion was "
            f"estimated on {expected}: expected the same. Resize or trim one of the clips."
        )
    errors = []
    for i in range(frames.shape[2] - 1):
        check_cancelled()
        seen = motion.visible[:, :, i].to(frames.device)
        if not seen.any():
            continue
        flow = motion.flow[:, :, i].to(frames.device)
        difference = warp(frame(frames, i + 1), flow, "bilinear") - frame(frames, i)
        errors.append(difference.square().mean(dim=1, keepdim=True)[seen].mean())
    return float(torch.stack(errors).mean()) if errors else float("nan")
