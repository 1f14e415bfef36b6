"""Writing files whole, and for everybody who may read the folder."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from scripts.env.layout import ROOT
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


TOO_LARGE = """
import resource, signal, sys
from pathlib import Path
import torch
from uav_core.files import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    save_tensors(Path(sys.argv[1]), {"x": torch.zeros(1 << 16)}, {})
except OSError as error:
    print(error.errno)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_tensors_that_do_not_fit_are_a_system_error(tmp_path):
    """As on a full disk, where safetensors raises an error of its own."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"before")
    command = [sys.executable, "-c", TOO_LARGE, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == errno.EFBIG
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"before"]
