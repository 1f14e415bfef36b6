"""Pictures warped along an optical flow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, flow: Tensor, mode: str, padding: str = "zeros") -> Tensor:
    """Sample ``x`` (b c h w) at every position plus ``flow`` (b 2 h w, pixels; x then y).

    ``mode`` is "nearest", "bilinear" or "bicubic"; outside of ``x`` there are "zeros", or its
    "border" is repeated. The result is bit for bit that of kornia's ``remap`` with
    ``align_corners=True``, as in the reference, but no constant has to be copied to the GPU.
    """
    h, w = x.shape[-2:]
    columns, rows = _targets(flow)
    grid = torch.stack([columns * (2 / max(w - 1, 1)) - 1, rows * (2 / max(h - 1, 1)) - 1], dim=-1)
    moved = F.grid_sample(
        x.to(flow.dtype), grid, mode=mode, padding_mode=padding, align_corners=True
    )
    return moved.to(x.dtype)


def inside(flow: Tensor) -> Tensor:
    """(b 1 h w) bool: where ``flow`` leads to a place inside the picture."""
    h, w = flow.shape[-2:]
    columns, rows = _targets(flow)
    return ((columns >= 0) & (columns <= w - 1) & (rows >= 0) & (rows <= h - 1))[:, None]


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """The column and the row, (b h w), to which the flow leads from every position."""
    h, w = flow.shape[-2:]
    columns = torch.arange(w, device=flow.device, dtype=flow.dtype)
    rows = torch.arange(h, device=flow.device, dtype=flow.dtype)[:, None]
    return columns + flow[:, 0], rows + flow[:, 1]
