"""Numbered pictures of noise."""

from __future__ import annotations

from pathlib import Path

import torch

from uav_core.video.color import BT709, FromRGB, from_floats
from uav_core.video.sequences import encoded

W, H = 40, 24


def write_frames(folder: Path, count: int = 3, ending: str = ".png", first: int = 7) -> Path:
    """Write numbered pictures of noise; EXR values are up to 50 times white."""
    rng = torch.Generator().manual_seed(0)
    folder.mkdir(exist_ok=True)
    for i in range(first, first + count):
        values = torch.rand(3, H, W, generator=rng)
        if ending == ".exr":
            data = encoded(from_floats(50 * values**6), "exr", {"format": "half"})
        else:
            data = encoded(FromRGB("rgb48be", BT709)(values * 2 - 1), "png", {})
        (folder / f"shot.{i:04d}{ending}").write_bytes(data)
    return folder
