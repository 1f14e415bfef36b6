"""What other devices lack is not asked of them.

PyTorch's meta device stands for one that lacks it: the networks go there the way that they go on a
GPU, and tensors on the CPU, where float64 is at hand, are told from those on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from generated import det
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.studies.real_sizes import META, unet_inputs, vae_inputs
from uav_core.callbacks import ignore
from uav_core.devices import abilities as devices
from uav_core.devices import cpu, gpu, stripes
from uav_core.devices.layers import PLAIN
from uav_core.frames import color
from uav_core.models import attention
from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import TemporalVAE
from uav_core.sampling import propagation
from uav_core.sampling.tiles import plan_tiles, tiled_predict

H, W = 24, 40


class Asked(TorchDispatchMode):
    """Names the operations that a device without float64 cannot do, or does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        there = [x for x in tensors if x.device.type == "meta"]
        if any(x.dtype == torch.float64 for x in there) or (there and "fused_sdp" in str(func)):
            self.found.append(str(func))
        return out


@pytest.fixture
def lacking(monkeypatch):
    """Takes meta off the devices that have everything."""
    monkeypatch.setattr(devices, "COMPLETE", devices.COMPLETE - {"meta"})


@pytest.fixture(autouse=True)
def as_if_large(monkeypatch):
    """Everything goes in stripes and in parts, whatever its size."""
    monkeypatch.setattr(gpu, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(stripes, "MOST_STRIPES", 2)
    monkeypatch.setattr(attention, "MAX_SCORES", 2**16)


def vae() -> TemporalVAE:
    return TemporalVAE(tiny.VAES["vae_video"], device=META)


def unet_pass() -> Tensor:
    unet = TemporalUNet(tiny.UNET, dtype=torch.float16, device=META)
    return unet(*unet_inputs(unet, 2, H, W))


def decode() -> Tensor:
    return vae().decode(*vae_inputs(vae(), H, W))


def encode() -> Tensor:
    return vae().encode(torch.empty(1, 3, 2, 4 * H, 4 * W, device=META))


def blend_tiles() -> Tensor:
    predict = tiled_predict(lambda x, *_, **__: x, plan_tiles((H, W), 16, 8), ignore)
    return predict(torch.empty(1, 4, 3, H, W, device=META), torch.ones(1))


def propagate() -> Tensor:
    x0 = torch.empty(1, 4, 3, H, W, device=META)
    flow = torch.empty(1, 2, 2, H, W, device=META)
    return propagation.propagate(x0, flow, flow)


def fix_colour() -> Tensor:
    pixels = torch.empty(1, 3, 2, 4 * H, 4 * W, device=META)
    frames = torch.empty(1, 3, 2, H, W, device=META)
    return torch.cat([color.color_fix(pixels, frames, mode) for mode in ("adain", "wavelet")])


EVERYTHING = [unet_pass, decode, encode, blend_tiles, propagate, fix_colour]


@pytest.mark.parametrize("run", EVERYTHING)
def test_no_float64_on_a_device_without_it(run: Callable[[], Tensor], lacking):
    with torch.inference_mode(), Asked() as asked:
        out = run()
    assert out.device.type == "meta"
    assert not asked.found


def test_both_are_asked_of_a_device_that_has_them():
    with torch.inference_mode(), Asked() as asked:
        decode()
    assert "aten.full.default" in asked.found, "the statistics were not in float64"
    assert any("fused_sdp" in name for name in asked.found)


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps", "xpu", "privateuseone"])
def test_only_known_devices_are_taken_for_complete(kind):
    device = torch.device(kind)
    known = kind in ("cpu", "cuda")
    assert devices.is_complete(device) is known
    assert devices.widest_float(device) == (torch.float64 if known else torch.float32)


@pytest.mark.parametrize("moments", [stripes.moments_of_pieces, stripes.moments_of_stripes])
@pytest.mark.parametrize("mean", [0.0, 5.0, 200.0])
def test_statistics_in_fp32_are_as_exact_as_the_whole_layer(monkeypatch, moments, mean):
    monkeypatch.setattr(devices, "COMPLETE", frozenset())
    monkeypatch.setattr(stripes, "moments", moments)
    x = det("devices/norm", (2, 64, 3, 40, 40)) + mean
    norm = PLAIN.GroupNorm(32, 64, eps=1e-6)
    with torch.inference_mode():
        scale, shift = stripes.scale_and_shift(norm, x)
        assert scale.dtype == shift.dtype == torch.float32
        exact = nn.functional.group_norm(x.double(), 32, eps=1e-6)
        error = (x * scale + shift - exact).abs().max()
        whole = (norm(x) - exact).abs().max()
    assert error <= 2 * whole + 1e-6


def test_a_network_in_fp32_throughout_is_the_same(monkeypatch):
    monkeypatch.setattr(cpu, "WHOLE_UP_TO", 0)
    monkeypatch.setattr(attention, "MAX_SCORES", 4096)
    z, low_res = det("devices/z", (1, 4, 3, 9, 11)), det("devices/frames", (1, 3, 3, 9, 11))
    vae = tiny.vae("vae_video")
    with torch.inference_mode():
        expected = vae.decode(z, low_res)
        monkeypatch.setattr(devices, "COMPLETE", frozenset())
        torch.testing.assert_close(vae.decode(z, low_res), expected, rtol=1e-4, atol=1e-4)
