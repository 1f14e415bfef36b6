"""A scene of a star that moves in front of a background, with its exact matte and depth."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from uav_core.flow.warp import warp

SCALE, H, W, FRAMES = 4, 96, 128, 4
MOTION = (3.3, 1.7)
"""Motion (x, y) of the star, in pixels of the large picture per frame."""
_MARGIN = 24


def texture(seed: int, side: int) -> Tensor:
    """Smooth noise (1, 3, h, w), larger than a frame, with mean 0 and deviation 1."""
    noise = torch.rand(1, 3, H + 4 * _MARGIN, W + 4 * _MARGIN, generator=torch.manual_seed(seed))
    for _ in range(2):
        noise = F.avg_pool2d(noise, side, 1)
    noise = noise[..., : H + 2 * _MARGIN, : W + 2 * _MARGIN]
    return (noise - noise.mean()) / noise.std()


def moved(picture: Tensor, x: float, y: float) -> Tensor:
    """The middle of a texture, moved right and down."""
    flow = torch.tensor([-x, -y]).view(1, 2, 1, 1).expand(1, 2, *picture.shape[-2:])
    shifted = warp(picture, flow.contiguous(), "bilinear", "border")
    return shifted[..., _MARGIN : _MARGIN + H, _MARGIN : _MARGIN + W]


def star(x: float, y: float) -> Tensor:
    """Matte (1, 1, H, W) of the star: the share of each pixel that is inside."""
    fine = 4
    rows, columns = ((torch.arange(n * fine) + 0.5) / fine for n in (H, W))
    down, right = rows[:, None] - y, columns - x
    radius = 28 + 6 * torch.cos(5 * torch.atan2(down, right))
    inside = (down.square() + right.square()).sqrt() < radius
    return F.avg_pool2d(inside.float()[None, None], fine)


@cache
def scene() -> tuple[Tensor, Tensor, Tensor]:
    """The picture (t, 3, H, W) in [-1, 1], its matte and depth (t, 1, H, W).

    The depth of the background is a ramp from 2 to 6; the star is in front at 1.
    """
    back, front = texture(1, 9), texture(2, 7)
    own = torch.tensor([0.6, 0.45, 0.35]).view(1, 3, 1, 1)
    other = own - torch.tensor([0.12, 0.12, -0.12]).view(1, 3, 1, 1)
    pictures, mattes, depths = [], [], []
    for t in range(FRAMES):
        x, y = MOTION[0] * t, MOTION[1] * t
        matte = star(54 + x, 46 + y)
        shown = matte * (own + 0.06 * moved(front, x, y))
        shown = shown + (1 - matte) * (other + 0.06 * moved(back, -1.1 * t, 0))
        pictures.append(shown * 2 - 1)
        mattes.append(matte)
        ramp = torch.linspace(2, 6, W).expand(1, 1, H, W)
        depths.append(torch.where(matte > 0.5, 1.0, ramp))
    return torch.cat(pictures), torch.cat(mattes), torch.cat(depths)


def shrunk(large: Tensor) -> Tensor:
    """Shrink by area averaging."""
    return F.avg_pool2d(large, SCALE)


def bicubic(small: Tensor) -> Tensor:
    """Enlarge by bicubic interpolation."""
    return F.interpolate(small, scale_factor=SCALE, mode="bicubic").clamp(small.min(), small.max())


def edge_error(result: Tensor, truth: Tensor) -> float:
    """The mean error within four pixels of the star's edge."""
    matte = scene()[1]
    edge = F.max_pool2d(matte, 9, 1, 4) + F.max_pool2d(-matte, 9, 1, 4) > 0.02
    return float((result - truth).abs()[edge].mean())


def flicker(result: Tensor, truth: Tensor) -> float:
    """Mean change of the error along the star's motion."""
    flow = torch.tensor(MOTION).view(1, 2, 1, 1).expand(FRAMES - 1, 2, H, W).contiguous()
    error = result - truth
    change = warp(error[1:], flow, "bilinear", "border") - error[:-1]
    return float(change[..., 8:-8, 8:-8].abs().mean())
