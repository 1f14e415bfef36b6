from __future__ import annotations

import pytest
import torch

from bench.measure.joints import spatial_jump
from uav_core.errors import InputError


def clip(picture: torch.Tensor) -> torch.Tensor:
    """(1, 3, 1, h, w) in [-1, 1], of a picture in [0, 1]."""
    return picture[None, :, None] * 2 - 1


def test_spatial_jump():
    across = torch.arange(32.0).mul(0.01).expand(3, 16, 32).clone()
    assert spatial_jump(clip(across), columns=(8, 16)) == pytest.approx(1, rel=1e-4)
    across[..., 16:] += 0.04
    assert spatial_jump(clip(across), columns=(16,)) == pytest.approx(5, rel=1e-4)
    assert spatial_jump(clip(across), columns=(8, 16)) == pytest.approx(3, rel=1e-4)
    down = across.mT.contiguous()
    assert spatial_jump(clip(down), rows=(16,)) == pytest.approx(5, rel=1e-4)
    assert spatial_jump(clip(down), rows=(16,), columns=(8,)) == pytest.approx(
        (5 + 1) / 2, rel=1e-4
    )


def test_some_tile_border_is_needed():
    with pytest.raises(InputError, match="No tile borders"):
        spatial_jump(clip(torch.zeros(3, 8, 16)))
    with pytest.raises(InputError, match="Borders at column"):
        spatial_jump(clip(torch.zeros(3, 8, 16)), columns=(16,))
