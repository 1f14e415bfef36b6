"""Winograd's convolutions give what the plain ones give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from generated import det
from torch import Tensor

from uav_core.devices import winograd
from uav_core.devices.cpu import CPU
from uav_core.devices.layers import PLAIN


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


def frames(*shape: int) -> Tensor:
    return det("winograd/x", shape).contiguous(memory_format=torch.channels_last)


def weights(cin: int, cout: int) -> tuple[Tensor, Tensor]:
    weight = det("winograd/weight", (cout, cin, 3, 3)) / (9 * cin) ** 0.5
    return weight, det("winograd/bias", (cout,))


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (12, 9), (3, 4), (5, 3)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_as_exact_as_the_plain_convolution(size, with_bias):
    x, (weight, bias) = frames(3, 160, *size), weights(160, 130)
    bias = bias if with_bias else None
    wide = None if bias is None else bias.double()
    exact = F.conv2d(x.double(), weight.double(), wide, padding=1)
    result = winograd.convolve_frames(x, weight, bias)
    plain = F.conv2d(x, weight, bias, padding=1)

    def error(y: Tensor) -> float:
        return (y - exact).square().mean().sqrt().item()

    assert result.shape == exact.shape
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert error(result) < 2 * error(plain)
    assert (result - exact).abs().max() < 3e-5


def test_frames_with_the_channels_first_are_taken_too():
    x, (weight, bias) = frames(2, 32, 8, 8), weights(32, 32)
    expected = winograd.convolve_frames(x, weight, bias)
    torch.testing.assert_close(winograd.convolve_frames(x.contiguous(), weight, bias), expected)


def test_a_convolution_of_the_network_uses_it_where_it_pays(monkeypatch):
    seen = []
    real = winograd.convolve_frames

    def watched(x, weight, bias):
        seen.append(tuple(x.shape))
        return real(x, weight, bias)

    monkeypatch.setattr(winograd, "convolve_frames", watched)
    layer = PLAIN.Conv2d(192, 200, 3, padding=1).requires_grad_(False)
    large = frames(4, 192, 20, 20)
    torch.testing.assert_close(
        CPU.convolve_frames(layer, large), layer(large), atol=1e-5, rtol=1e-5
    )
    assert seen == [(4, 192, 20, 20)]
    CPU.convolve_frames(layer, large[:1])
    CPU.convolve_frames(PLAIN.Conv2d(64, 200, 3, padding=1), frames(4, 64, 20, 20))
    CPU.convolve_frames(layer.bfloat16(), large.bfloat16())
    assert len(seen) == 1, "few positions, few channels and half precision are left alone"


def test_with_gradients_the_plain_convolution_is_used(monkeypatch):
    monkeypatch.setattr(winograd, "convolve_frames", lambda *_: pytest.fail("has no gradient"))
    with torch.inference_mode(False), torch.enable_grad():
        layer = PLAIN.Conv2d(192, 192, 3, padding=1)
        CPU.convolve_frames(layer, torch.ones(4, 192, 20, 20)).sum().backward()
    assert layer.weight.grad is not None
