"""3x3 convolutions with fewer multiplications give what the plain ones give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from generated import det
from torch import nn

from uav_core.models import winograd
from uav_core.models.layers import lending


def inputs(n: int, cin: int, cout: int, h: int, w: int):
    x = det("x", (n, cin, h, w)).contiguous(memory_format=torch.channels_last)
    weight = det("weight", (cout, cin, 3, 3)) / (9 * cin) ** 0.5
    return x, weight, det("bias", (cout,))


def errors(result: torch.Tensor, exact: torch.Tensor) -> float:
    return (result - exact).square().mean().sqrt().item()


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (12, 9)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_as_exact_as_the_plain_convolution(size, with_bias):
    x, weight, bias = inputs(3, 160, 130, *size)
    bias = bias if with_bias else None
    wide = None if bias is None else bias.double()
    exact = F.conv2d(x.double(), weight.double(), wide, padding=1)
    with torch.inference_mode():
        result = winograd.convolve(x, weight, bias)
        plain = F.conv2d(x, weight, bias, padding=1)
    assert result.shape == exact.shape
    assert errors(result, exact) < 2 * errors(plain, exact)


def test_cut_to_the_workspace_it_gives_the_same(monkeypatch):
    x, weight, bias = inputs(3, 128, 144, 20, 16)
    with torch.inference_mode():
        whole = winograd.convolve(x, weight, bias)
        # A frame at a time, 32 channels at a time.
        monkeypatch.setattr(winograd, "WORKSPACE", 1)
        torch.testing.assert_close(winograd.convolve(x, weight, bias), whole, atol=1e-5, rtol=1e-5)


def test_a_convolution_of_the_network_uses_it_where_it_pays(monkeypatch):
    used = []
    real = winograd.convolve

    def watched(x, weight, bias):
        used.append(tuple(x.shape))
        return real(x, weight, bias)

    monkeypatch.setattr(winograd, "convolve", watched)
    layer = lending(nn.Conv2d)(128, 128, 3, padding=1).requires_grad_(False)
    with torch.inference_mode():
        large = torch.zeros(4, 128, 20, 20)
        layer(large)
        layer(large[:1, :, :8, :8])
    assert used == [(4, 128, 20, 20)]
    layer(large)
    assert len(used) == 1, "with gradients, as in training, the plain convolution is used"


@pytest.mark.parametrize("change", ["channels", "dtype", "stride", "kernel", "padding"])
def test_other_convolutions_are_left_alone(change, monkeypatch):
    monkeypatch.setattr(winograd, "convolve", lambda *_: pytest.fail("must not be used"))
    options = {
        "channels": {"in_channels": 64},
        "stride": {"stride": 2},
        "kernel": {"kernel_size": 1, "padding": 0},
        "padding": {"padding": 0},
    }.get(change, {})
    settings = {"in_channels": 128, "out_channels": 128, "kernel_size": 3, "padding": 1, **options}
    layer = lending(nn.Conv2d)(**settings)
    x = torch.zeros(4, settings["in_channels"], 20, 20)
    if change == "dtype":
        layer, x = layer.bfloat16(), x.bfloat16()
    with torch.inference_mode():
        assert layer(x).isfinite().all()
