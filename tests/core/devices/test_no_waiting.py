"""No pass makes a device wait for the CPU, nor copies from it: both forbid CUDA graphs.

Run on PyTorch's meta device, at the released size: tensors without values, for which the networks
go the way that they go on a GPU. Whoever asks for a value gets an error, and every tensor that an
operation is given is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.studies.real_sizes import META, blank, unet_inputs, vae_inputs
from uav_core.devices import stripes
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams


class OnTheCPU(TorchDispatchMode):
    """Names the operations that have to do with a tensor on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        if any(x.device.type == "cpu" for x in tensors):
            self.found.append(str(func))
        return out


@pytest.fixture(autouse=True)
def no_constants(monkeypatch):
    """A tensor made of Python's numbers is copied to its device, which meta does not show."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a constant is copied to the device")

    for owner, name in (
        (torch, "tensor"),
        (torch, "as_tensor"),
        (torch, "from_numpy"),
        (Tensor, "new_tensor"),
    ):
        monkeypatch.setattr(owner, name, refuse)


def unet_pass(dtype: torch.dtype) -> Callable[[], Tensor]:
    unet = TemporalUNet(UNetParams(), dtype=dtype, device=META)
    return lambda: unet(*unet_inputs(unet, 2, 180, 320))


def decode(dtype: torch.dtype) -> Callable[[], Tensor]:
    vae = TemporalVAE(VAEParams(), dtype=dtype, device=META)
    return lambda: vae.decode(*vae_inputs(vae, 180, 320))


@pytest.mark.parametrize("network", [unet_pass, decode])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_pass_never_looks_at_the_cpu(network, dtype, monkeypatch):
    run, cut = network(dtype), []
    fill = stripes.activation
    monkeypatch.setattr(stripes, "activation", lambda *a: cut.append(1) or fill(*a))
    with torch.inference_mode(), OnTheCPU() as seen:
        out = run()
    assert out.device.type == "meta" and out.shape[-2] in (180, 720)
    assert not seen.found
    assert cut, "the way in stripes was not looked at"


@pytest.mark.parametrize("bad", [lambda x: x.sum().item(), lambda x: x + torch.ones(2)])
def test_what_would_be_found(bad):
    with OnTheCPU() as seen:
        try:
            bad(blank(torch.float32, 2))
        except RuntimeError:
            return
    assert seen.found
