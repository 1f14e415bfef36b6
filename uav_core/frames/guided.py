"""Mattes, depth and alpha at the size of an upscaled picture, their edges laid along its own.

Joint bilateral upsampling (Kopf et al. 2007): every new value is a mean of the small ones around
it, in which those count whose colours are like the pixel's. So a step stays a step where the
picture has one. Each goes along its own slope, which is 0 at steps (the "minmod" of finite
volumes): a ramp comes out as a ramp. kornia's ``joint_bilateral_blur`` filters at the large size,
in windows that are then hundreds of values wide; and how alike colours must be is one number
there, where here it follows the contrast around.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 2
"""Rows and columns of small values to either side that are looked at."""
NEAR = 0.7
"""The standard deviation of their weights by distance, in small pixels."""
NOISE = 0.04
"""Colours (of a range of 2) that differ by less are alike whatever the contrast."""
CONTRAST = 0.1
"""The share of the colours' variance around that counts as alike."""
UNLIKE = 1e-3
"""What a value of quite another colour counts, so that some always do."""
WINDOW = 5
"""Side of the window for means, in small pixels."""


def enlarged(small: Tensor, guide: Tensor) -> Tensor:
    """``small`` (n, c, h, w) of any range at the size of ``guide`` (n, 3, h2, w2) in [-1, 1].

    Nowhere more or less than the small values next to it; but for a binary matte its mean over
    every small pixel is that pixel's value, as far as that allows.
    """
    result = _alike(small, guide)
    if binary(small):
        return result
    size = guide.shape[-2:]
    missing = small - F.interpolate(result, small.shape[-2:], mode="area")
    return within(result + F.interpolate(missing, size, mode="bicubic"), small)


def within(large: Tensor, small: Tensor) -> Tensor:
    """``large`` with nothing above or below what is next to it in ``small``."""
    padded, size = F.pad(small, (1, 1, 1, 1), mode="replicate"), large.shape[-2:]
    most = F.interpolate(F.max_pool2d(padded, 3, 1), size, mode="nearest-exact")
    least = F.interpolate(-F.max_pool2d(-padded, 3, 1), size, mode="nearest-exact")
    return large.clamp(least, most)


def binary(small: Tensor) -> bool:
    """Whether all values are 0 or 1: a matte without soft edges."""
    return bool(((small == 0) | (small == 1)).all())


def crisp(large: Tensor, small: Tensor) -> Tensor:
    """An enlarged binary matte with edges about one pixel wide; any other as it is."""
    if not binary(small):
        return large
    scale = max(big / own for big, own in zip(large.shape[-2:], small.shape[-2:], strict=True))
    return ((large - 0.5) * scale + 0.5).clamp(0, 1)


def window_mean(x: Tensor) -> Tensor:
    """The mean in a window around every pixel; beyond the border the last pixel goes on."""
    return F.avg_pool2d(F.pad(x, (WINDOW // 2,) * 4, mode="replicate"), WINDOW, 1)


def _alike(small: Tensor, guide: Tensor) -> Tensor:
    """The mean of what the small values around tell of a pixel, by distance and colour."""
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
    """What the values rise by from one to the next along a dimension; 0 at a step or a peak."""
    if x.shape[dim] == 1:
        return torch.zeros_like(x)
    steps = x.diff(dim=dim)
    first, last = steps.narrow(dim, 0, 1), steps.narrow(dim, -1, 1)
    before, after = torch.cat([first, steps], dim), torch.cat([steps, last], dim)
    least = torch.minimum(before.abs(), after.abs())
    return torch.where(before * after > 0, least * before.sign(), 0)


def _offset(large: int, small: int, like: Tensor) -> Tensor:
    """How far each large pixel lies from the middle of the small one it is in, in small pixels."""
    place = (torch.arange(large, device=like.device, dtype=like.dtype) + 0.5) * (small / large)
    return place - place.floor() - 0.5


def _near(distance: Tensor) -> Tensor:
    return torch.exp(-(distance / NEAR).square() / 2)
