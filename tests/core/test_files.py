"""Writing files whole, and for everybody who may read the folder."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from uav_core.files import save_tensors


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_tensors_are_readable_like_any_new_file(tmp_path):
    """A ComfyUI that runs as another user must be able to load them."""
    usual = tmp_path / "usual"
    usual.touch()
    path = tmp_path / "a.safetensors"
    for value in (1.0, 2.0):
        save_tensors(path, {"x": torch.full((2,), value)}, {})
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)
        assert load_file(path)["x"].tolist() == [value, value]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "usual"]
