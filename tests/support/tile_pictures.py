"""Pictures and measures for tests of tiles."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from generated import det
from torch.utils._python_dispatch import TorchDispatchMode

from bench.measure.joints import spatial_jump


def smooth(name: str, channels: int, h: int, w: int) -> torch.Tensor:
    """A smooth picture (1, channels, 1, h, w), so that only tiles can cause jumps."""
    coarse = det(name, (1, channels, 4, 6)) * 0.3
    fine = F.interpolate(coarse, (h, w), mode="bicubic", align_corners=True)
    return fine.clamp(-1, 1)[:, :, None]


def borders(plan) -> tuple[list[int], list[int]]:
    """Columns and rows at which a tile begins or ends inside the picture."""
    bottom, right = max(tile.bottom for tile in plan), max(tile.right for tile in plan)
    columns = {side for tile in plan for side in (tile.left, tile.right)} - {0, right}
    rows = {side for tile in plan for side in (tile.top, tile.bottom)} - {0, bottom}
    return sorted(columns), sorted(rows)


def paste(parts, like: torch.Tensor) -> torch.Tensor:
    """Paste tiles over one another without blending."""
    out = torch.empty_like(like)
    for tile, part in parts:
        tile.crop(out).copy_(part)
    return out


def jump(x: torch.Tensor, plan) -> float:
    return spatial_jump(x[:, :3] / x.abs().amax(), *borders(plan))


class Largest(TorchDispatchMode):
    """Records the size in bytes of the largest result of any operation."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else (out,):
            if isinstance(x, torch.Tensor):
                self.nbytes = max(self.nbytes, x.nbytes)
        return out
