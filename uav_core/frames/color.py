"""Colour fixes: give upscaled frames the colours of the low-resolution clip.

AdaIN matches the mean and spread of each channel (Huang & Belongie 2017, arXiv 1703.06868);
the wavelet form keeps the frame's detail and takes the lowest frequencies from the clip (as
StableSR does, arXiv 2305.07015). Both work on one frame at a time and share no statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..models.vae import UPSCALE

ColorMode = Literal["none", "adain", "wavelet"]

WAVELET_LEVELS = 5
# Keeps the division finite on a flat channel (such as a black frame); the released code's value.
VARIANCE_EPS = 1e-5


def color_fix(frames: Tensor, low_res: Tensor, mode: ColorMode) -> Tensor:
    """Frames with the colours of the clip they were upscaled from.

    frames (1,3,t,4h,4w) and low_res (1,3,t,h,w), both in [-1, 1]; `mode` is "none" (frames come
    back as they are), "adain" or "wavelet". The result has the frames' shape, dtype and device
    and is not clamped. Works frame by frame in fp32, so the extra memory is that of a few
    frames, however long the clip is. Raises InputError for an unknown mode or wrong shapes.
    """
    if mode == "none":
        return frames
    if mode not in ("adain", "wavelet"):
        raise InputError(f'colour fix "{mode}" is unknown: use "none", "adain" or "wavelet".')
    return with_enlarged(frames, low_res, adain if mode == "adain" else wavelet, "colour fix")


def with_enlarged(
    frames: Tensor, low_res: Tensor, work: Callable[[Tensor, Tensor], Tensor], name: str
) -> Tensor:
    """Apply ``work(frame, enlarged)`` to every frame and the bicubic enlargement of its input.

    ``work`` gets and returns (1, 3, 4h, 4w) fp32. Shapes and result as in ``color_fix``; messages
    use ``name``.
    """
    if frames.ndim != 5 or low_res.ndim != 5:
        raise InputError(
            f"{name} needs frames and low_res as (1, 3, t, h, w), but got "
            f"{tuple(frames.shape)} and {tuple(low_res.shape)}."
        )
    expected = (*low_res.shape[:3], UPSCALE * low_res.shape[3], UPSCALE * low_res.shape[4])
    if tuple(frames.shape) != expected:
        raise InputError(
            f"{name} got frames of shape {tuple(frames.shape)} for a low-resolution clip of "
            f"shape {tuple(low_res.shape)}: expected {expected}. Pass the clip that was upscaled."
        )
    result = torch.empty_like(frames)
    for i in range(frames.shape[2]):
        frame = frames[:, :, i].float()
        source = low_res[:, :, i].to(frame)
        result[:, :, i] = work(frame, enlarge(source))
    return result


def enlarge(x: Tensor) -> Tensor:
    """``x`` (n, c, h, w) enlarged four times, bicubic."""
    return F.interpolate(x, scale_factor=UPSCALE, mode="bicubic", align_corners=False)


def adain(content: Tensor, style: Tensor) -> Tensor:
    """`content` (n,3,h,w) with the mean and unbiased std that each channel of `style` has.

    Frame by frame, any range; `style` may differ in h and w.
    """
    content_mean, content_std = _mean_std(content)
    style_mean, style_std = _mean_std(style)
    return (content - content_mean) * (style_std / content_std) + style_mean


def _mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(x, dim=(-2, -1), keepdim=True)
    return mean, (variance + VARIANCE_EPS).sqrt()


def wavelet(content: Tensor, style: Tensor) -> Tensor:
    """High frequencies of `content` on the lowest frequencies of `style`, both (n,3,h,w)."""
    # content - low(content) + low(style): the blurs are linear, so one pass over the difference
    # is enough.
    return content + low_frequencies(style - content, WAVELET_LEVELS)


def low_frequencies(x: Tensor, levels: int) -> Tensor:
    """``x`` (n,c,h,w) after ``levels`` wider and wider binomial blurs (dilation 1, 2, 4, ...)."""
    for level in range(levels):
        dilation = 2**level
        for dim in (-1, -2):
            x = _blurred(x, dilation, dim)
    return x


def _blurred(x: Tensor, dilation: int, dim: int) -> Tensor:
    """The blur (1, 2, 1) / 4 along ``dim``, outer taps ``dilation`` away; edges are repeated.

    It sums slices, as a convolution of so few channels takes three times as long on a CPU.
    """
    n = x.shape[dim]
    reach = min(dilation, n)
    inner, out = n - reach, x * 0.5
    out.narrow(dim, reach, inner).add_(x.narrow(dim, 0, inner), alpha=0.25)
    out.narrow(dim, 0, inner).add_(x.narrow(dim, reach, inner), alpha=0.25)
    out.narrow(dim, 0, reach).add_(x.narrow(dim, 0, 1), alpha=0.25)
    out.narrow(dim, inner, reach).add_(x.narrow(dim, n - 1, 1), alpha=0.25)
    return out
