"""Mattes, depth and alpha enlarged to an upscaled picture, with edges aligned to its edges.

Joint bilateral upsampling (Kopf et al. 2007): every new value is a mean of the small values around
it, weighted by how similar their colours are to the pixel's. So a step stays sharp where the
picture has one. Each small value is extended along its own slope, which is 0 at steps (the "minmod"
limiter of finite volumes), so a ramp stays a ramp. kornia's ``joint_bilateral_blur`` would filter
at the large size, in windows hundreds of values wide, and has one number for how similar colours
must be; here that follows the local contrast.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2
"""Rows and columns of small values used on each side."""
NEAR = 0.7
"""Standard deviation of the weights by distance, in small pixels."""
NOISE = 0.04
"""Colours that differ by less (in a range of 2) are similar whatever the contrast."""
CONTRAST = 0.1
"""The share of the local variance of colours that counts as similar."""
UNLIKE = 1e-3
"""The weight of a value of quite another colour, so that the weights never sum to 0."""
WINDOW = 5
"""Side of the window for means, in small pixels."""


def enlarged(small: Tensor, guide: Tensor) -> Tensor:
    """``small`` (n, c, h, w) of any range at the size of ``guide`` (n, 3, h2, w2) in [-1, 1].

    Every value lies within the range of the small values next to it. Except for a binary matte,
    its mean over every small pixel is that pixel's value, as far as this range allows.
    """
    result = _alike(small, guide)
    if binary(small):
        return result
    size = guide.shape[-2:]
    missing = small - F.interpolate(result, small.shape[-2:], mode="area")
    return within(result + F.interpolate(missing, size, mode="bicubic"), small)


def within(large: Tensor, small: Tensor) -> Tensor:
    """``large`` clamped to the range of the values of ``small`` next to each pixel."""
    padded, size = F.pad(small, (1, 1, 1, 1), mode="replicate"), large.shape[-2:]
    most = F.interpolate(F.max_pool2d(padded, 3, 1), size, mode="nearest-exact")
    least = F.interpolate(-F.max_pool2d(-padded, 3, 1), size, mode="nearest-exact")
    return large.clamp(least, most)


def binary(small: Tensor) -> bool:
    """Whether all values are 0 or 1: a matte without soft edges."""
    return bool(((small == 0) | (small == 1)).all())


def crisp(large: Tensor, small: Tensor) -> Tensor:
    """An enlarged binary matte with edges about one pixel wide; other mattes are unchanged."""
    if not binary(small):
        return large
    scale = max(big / own for big, own in zip(large.shape[-2:], small.shape[-2:], strict=True))
    return ((large - 0.5) * scale + 0.5).clamp(0, 1)


def window_mean(x: Tensor) -> Tensor:
    """The mean in a window around every pixel; the border is repeated."""
    return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, 1)


def _alike(small: Tensor, guide: Tensor) -> Tensor:
    """For each pixel, the mean of the small values around it, weighted by distance and colour."""
    size, (h, w) = guide.shape[-2:], small.shape[-2:]
    colors = F.interpolate(guide, (h, w), mode="area")
    spread = window_mean(colors.square()) - window_mean(colors).square()
    alike = 2 * (NOISE**2 + CONTRAST * spread.sum(1, keepdim=True).clamp(min=0))
    alike = F.interpolate(alike, size, mode="bilinear")
    down, right = _slope(small, -2), _slope(small, -1)
    planes = torch.cat([small, down, right, colors, torch.ones_like(small[:, :1])], dim=1)
    planes = F.pad(planes, (REACH,) * 4)
    parts = [small.shape[1]] * 3 + [colors.shape[1], 1]
    rows, columns = (_offset(n, own, guide) for n, own in zip(size, (h, w), strict=True))
    total, weights = torch.zeros_like(guide[:, :1]), torch.zeros_like(guide[:, :1])
    for i, j in product(range(2 * REACH + 1), repeat=2):
        there = F.interpolate(planes[..., i : i + h, j : j + w], size, mode="nearest-exact")
        value, down, right, color, present = there.split(parts, dim=1)
        y, x = (rows - (i - REACH))[:, None], columns - (j - REACH)
        apart = (color - guide).square().sum(1, keepdim=True)
        weight = present * _near(y) * _near(x) * (UNLIKE + torch.exp(-apart / alike))
        total = total + weight * (value + y * down + x * right)
        weights = weights + weight
    return total / weights


def _slope(x: Tensor, dim: int) -> Tensor:
    """The rise from one value to the next along ``dim``; 0 at a step or a peak."""
    if x.shape[dim] == 1:
        return torch.zeros_like(x)
    steps = x.diff(dim=dim)
    first, last = steps.narrow(dim, 0, 1), steps.narrow(dim, -1, 1)
    before, after = torch.cat([first, steps], dim), torch.cat([steps, last], dim)
    least = torch.minimum(before.abs(), after.abs())
    return torch.where(before * after > 0, least * before.sign(), 0)


def _offset(large: int, small: int, like: Tensor) -> Tensor:
    """Distance of each large pixel from the centre of its small pixel, in small pixels."""
    place = (torch.arange(large, device=like.device, dtype=like.dtype) + 0.5) * (small / large)
    return place - place.floor() - 0.5


def _near(distance: Tensor) -> Tensor:
    return torch.exp(-(distance / NEAR).square() / 2)
