"""Data to train on."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from uav_core.training.data import pack


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """An unpacked pack of two noise pictures and no video, with one held-out clip."""
    root, rng = tmp_path_factory.mktemp("pack"), np.random.default_rng(0)
    for name in ("one", "two"):
        coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((240, 180)).save(root / f"{name}.webp")
    (root / pack.PIECES).write_text("{}")
    low = rng.integers(0, 255, (1, pack.SEEN_FRAMES, 16, 16, 3), dtype=np.uint8)
    clean = rng.integers(0, 255, (1, len(pack.KEPT_FRAMES), 64, 64, 3), dtype=np.uint8)
    pack.write_held_out(
        root / pack.HELD_OUT,
        {"names": np.array(["noise"]), "low": low, "clean": clean, "which": np.array([0])},
    )
    return root
