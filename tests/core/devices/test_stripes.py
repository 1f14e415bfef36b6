"""Layers run in stripes of rows give what they give whole, in less memory."""

import copy

import pytest
import tiny
import torch
from generated import det
from torch import nn
from torch.nn import functional as F
from ways import fewest_products

from bench.measure.memory import measure_peak
from uav_core.devices import cpu, stripes
from uav_core.devices.layers import PLAIN, Layers
from uav_core.models.layers import Resnet
from uav_core.models.vae import TemporalVAE, VAEParams

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture
def striped(monkeypatch):
    """Everything in stripes of three rows or so, whatever its size."""

    def set_up(most=32, least=3, fewer=False):
        """``fewer`` multiplications wherever they are possible, in stripes of a tile or so."""
        if fewer:
            fewest_products(monkeypatch)
        monkeypatch.setattr(cpu, "WHOLE_UP_TO", 0)
        monkeypatch.setattr(stripes, "MOST_STRIPES", most)
        monkeypatch.setattr(stripes, "LEAST_ROWS", least)

    return set_up


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fewer", [False, True])
@pytest.mark.parametrize("least", [1, 3, 5])
@pytest.mark.parametrize("kind", tiny.VAES)
def test_vae_is_the_same(striped, kind, least, fewer):
    z, low_res = det("stripes/z", (1, 4, 3, 7, 9)), det("stripes/frames", (1, 3, 3, 7, 9))
    vae, pixels = tiny.vae(kind), det("stripes/pixels", (1, 3, 2, 28, 36))
    decoded, encoded = vae.decode(z, low_res), vae.encode(pixels)
    striped(least=least, fewer=fewer)
    close(vae.decode(z, low_res), decoded)
    close(vae.encode(pixels), encoded)


@pytest.mark.parametrize("kind", tiny.VAES)
def test_in_bf16_they_are_as_near_to_fp32_as_whole(striped, kind):
    z, low_res = det("stripes/z", (1, 4, 3, 7, 9)), det("stripes/frames", (1, 3, 3, 7, 9))
    exact = tiny.vae(kind).decode(z, low_res)
    half = copy.deepcopy(tiny.vae(kind)).bfloat16()

    def error() -> float:
        return (half.decode(z, low_res) - exact).square().mean().sqrt().item()

    whole = error()
    striped()
    assert 0 < error() < 1.5 * whole


def unet_inputs(b, t, h, w):
    return (
        det("stripes/latent", (b, 4, t, h, w)),
        torch.full((b,), 500),
        det("stripes/low_res", (b, 3, t, h, w)),
        tiny.context()[:b],
        torch.full((b,), 120),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_unet_is_as_near_to_fp32_as_whole(striped, dtype):
    inputs = unet_inputs(1, 3, 16, 24)
    exact = tiny.unet()(*inputs)
    half = copy.deepcopy(tiny.unet()).to(dtype)
    cast = [x.to(dtype) if x.is_floating_point() else x for x in inputs]

    def error() -> float:
        return (half(*cast).float() - exact).square().mean().sqrt().item()

    whole = error()
    striped()
    # Measured: 1.05 on a CPU that computes in bf16; 1.28 on one that does not, where PyTorch rounds
    # a whole layer less often.
    assert 0 < error() < 1.4 * whole


@pytest.mark.parametrize("fewer", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 16, 24), (1, 1, 9, 13)])
def test_unet_is_the_same(striped, shape, fewer):
    inputs = unet_inputs(*shape)
    whole = tiny.unet()(*inputs)
    striped(fewer=fewer)
    close(tiny.unet()(*inputs), whole)


def test_clips_of_a_batch_one_after_the_other(monkeypatch):
    inputs = (
        det("alone/latent", (2, 4, 3, 8, 16)),
        torch.tensor([500, 20]),
        det("alone/low_res", (2, 3, 3, 8, 16)),
        tiny.context(),
        torch.tensor([120, 7]),
    )
    together = tiny.unet()(*inputs)
    peak = measure_peak(lambda: tiny.unet()(*inputs), CPU).live
    monkeypatch.setattr(cpu, "ALONE_FROM", 0)
    close(tiny.unet()(*inputs), together)
    assert measure_peak(lambda: tiny.unet()(*inputs), CPU).live < 0.6 * peak


def test_a_mean_far_from_zero_is_not_lost(striped):
    x = 1000 + det("stripes/x", (2, 64, 3, 11, 8))
    norm = PLAIN.GroupNorm(32, 64)
    nn.init.normal_(norm.weight)
    striped()
    rows = torch.empty(2, 64, 3, 11, 8)
    stripes.activation(norm, x)(rows, 0, 11)
    # The whole layer's own error is of that size.
    torch.testing.assert_close(rows, F.silu(norm(x.double().float())), rtol=1e-3, atol=1e-3)


def test_decoding_takes_a_third_less_memory(striped):
    vae = TemporalVAE(VAEParams(channels=(32, 64, 128), condition_channels=32)).eval()
    z, low_res = torch.randn(1, 4, 3, 16, 16), torch.randn(1, 3, 3, 16, 16)
    whole = measure_peak(lambda: vae.decode(z, low_res), CPU).live
    striped(least=4)
    assert measure_peak(lambda: vae.decode(z, low_res), CPU).live < 0.67 * whole


@pytest.mark.parametrize("fewer", [False, True])
def test_weights_come_through_the_layer(striped, fewer):
    """Classes that compute with other weights than they hold, as ComfyUI's do, are heard."""

    class Doubling(nn.Conv2d):
        def forward(self, input):
            return self._conv_forward(input, 2 * self.weight, self.bias)

    class Operations(nn.Module):
        Conv2d, Conv3d, Linear, GroupNorm = Doubling, nn.Conv3d, nn.Linear, nn.GroupNorm

    x = det("stripes/resnet", (1, 32, 2, 12, 8))
    resnet = Resnet(Layers(Operations), 32, 64, eps=1e-6)
    whole = resnet(x)
    striped(fewer=fewer)
    close(resnet(x), whole)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch without oneDNN")
@pytest.mark.parametrize("frames", [1, 3])
def test_small_3d_convolutions_are_not_left_to_pytorchs_slow_one(frames):
    conv = PLAIN.Conv3d(16, 16, 3, padding=1)
    x = det("stripes/small", (1, 16, frames, 24, 20))
    expected = F.conv3d(x, conv.weight, conv.bias, padding=1)
    with torch.profiler.profile() as profile:
        out = conv(x.contiguous(memory_format=torch.channels_last_3d))
    run = {event.key for event in profile.key_averages()}
    assert not any("slow_conv3d" in name for name in run), run
    close(out, expected)


@pytest.mark.parametrize("kernel", [3, 5])
def test_convolution_along_time_is_a_3d_one(kernel):
    shape = (kernel, 1, 1)
    conv = PLAIN.ConvAlongTime(8, 12, shape, padding=(kernel // 2, 0, 0))
    x = det("stripes/time", (2, 8, 5, 4, 6))
    expected = F.conv3d(x, conv.weight, conv.bias, padding=(kernel // 2, 0, 0))
    close(conv(x), expected)
    close(conv(x.contiguous(memory_format=torch.channels_last_3d)), expected)


@pytest.mark.parametrize("shape", [(1, 32, 1, 5, 7), (2, 64, 3, 20, 40), (1, 32, 2, 23, 61)])
@pytest.mark.parametrize("moments", [stripes.moments_of_pieces, stripes.moments_of_stripes])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_are_those_of_all_positions(shape, moments, dtype):
    """Away from 0, where sums in fp32 lose digits."""
    x = (det("moments", shape) + 5).to(dtype)
    means, squares, counts = moments(x)
    t, h, w = shape[2:]
    assert counts.sum() == t * h * w
    mean = (means * counts).sum(0) / counts.sum()
    spread = (squares + counts * (means - mean).square()).sum(0)
    exact = x.double().movedim(1, -1).flatten(1, 3)
    tolerance = {"rtol": 1e-6, "atol": 0}
    torch.testing.assert_close(mean, exact.mean(1), **tolerance)
    torch.testing.assert_close(spread, exact.var(1, correction=0) * t * h * w, **tolerance)
