"""The Triton kernels, run without a GPU by Triton's own interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

PROGRAM = """
import torch
import torch.nn.functional as F
from uav_core.devices import triton_norm
from uav_core.devices.layout import channels_last

triton_norm.check(torch.device("cpu"))
torch.manual_seed(0)
# Several programs and a last one with few rows; few channels; many in a group.
sizes = (2, 64, 32, (2, 5, 7)), (1, 3, 1, (40, 30)), (1, 160, 4, (3, 8, 8))
for dtype, allowed in ((torch.float16, 5e-3), (torch.bfloat16, 1e-1)):  # fp32: check
    for b, c, groups, sides in sizes:
        x = channels_last(3 * torch.randn(b, c, *sides) + 20).to(dtype)
        shift, weight, bias = (torch.randn(n).to(dtype) for n in (b * c, c, c))
        shift = shift.view(b, c)
        y = channels_last(torch.randn(b, c, *sides)).to(dtype)
        exact = x.double() + y.double() + bias.double()[(...,) + (None,) * len(sides)]
        out = triton_norm.joined(x.clone(), y, bias)
        # One rounding; the interpreter cuts bf16 off.
        assert ((out.double() - exact).abs() <= torch.finfo(dtype).eps * exact.abs() + 1e-5).all()
        assert out.stride() == x.stride() and out.dtype == dtype
        for given in (None, shift):
            wide = x.double()
            if given is not None:
                wide = wide + given.double()[(...,) + (None,) * len(sides)]
            exact = F.group_norm(wide, groups, weight.double(), bias.double(), 1e-6)
            for activate in (False, True):
                out = triton_norm.normed(x, given, weight, bias, groups, 1e-6, activate)
                error = (out.double() - (F.silu(exact) if activate else exact)).abs().max().item()
                assert error < allowed, (dtype, c, given is None, activate, error)
                assert out.stride() == x.stride() and out.dtype == dtype
"""


def test_kernels_give_what_pytorch_gives():
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
