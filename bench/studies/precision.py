"""Half precision: speed and difference compared with fp32."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from uav_core.models.half import fitted_to_half
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams

from ..cases.case import TINY_UNET, TINY_VAE, Setup, generated, unet_inputs, vae_inputs
from ..measure.compare import seconds

HALVES = {"cpu": (torch.bfloat16,)}
"""Half precisions by kind of device; others use both. A CPU is many times slower in fp16."""


@dataclass(frozen=True)
class Precision:
    """One network in one precision."""

    title: str
    seconds: float
    time_ratio: float
    """Time relative to fp32, of the fastest of runs that took turns."""
    psnr: float
    """PSNR to the fp32 result in dB, with its range as the peak; infinite for fp32 itself."""
    finite: bool


@torch.inference_mode()
def measure_precision(setup: Setup, repeat: int) -> list[Precision]:
    """Measure a U-Net pass and a decode in fp32, bf16 and fp16."""
    unet_params, vae_params = (TINY_UNET, TINY_VAE) if setup.quick else (UNetParams(), VAEParams())
    unet = generated(TemporalUNet(unet_params, device="meta"), setup.device)
    rows = compare(
        "U-Net pass",
        unet,
        "__call__",
        unet_inputs(unet_params, setup.size, setup.device),
        repeat,
        setup,
    )
    del unet
    vae = generated(TemporalVAE(vae_params, device="meta"), setup.device)
    inputs = vae_inputs(vae_params, setup.size, setup.device)
    return rows + compare("VAE decode", vae, "decode", inputs, repeat, setup)


def compare(
    title: str,
    network: nn.Module,
    method: str,
    inputs: tuple[Tensor, ...],
    repeat: int,
    setup: Setup,
) -> list[Precision]:
    """Measure one network, with its precisions taking turns."""
    calls = {}
    halves = HALVES.get(setup.device.type, (torch.bfloat16, torch.float16))
    for dtype in (torch.float32, *halves):
        cast = network if dtype == torch.float32 else copy.deepcopy(network).to(dtype)
        if dtype == torch.float16 and isinstance(cast, TemporalVAE):
            cast.load_state_dict(fitted_to_half(cast, network.state_dict()))
        for own, whole in zip(cast.buffers(), network.buffers(), strict=True):
            own.data = whole.data  # rotary tables stay fp32, as in the pack
        own = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
        calls[dtype] = lambda cast=cast, own=own: getattr(cast, method)(*own)
    results = {dtype: call().float() for dtype, call in calls.items()}
    times: dict[Any, list[float]] = {dtype: [] for dtype in calls}
    for _ in range(repeat):
        for dtype, call in calls.items():
            times[dtype].append(seconds(call, setup.device))
    exact, fastest = results[torch.float32], min(times[torch.float32])
    return [
        Precision(
            f"{title}, {str(dtype).removeprefix('torch.')}",
            min(times[dtype]),
            min(times[dtype]) / fastest,
            psnr(results[dtype], exact),
            bool(results[dtype].isfinite().all()),
        )
        for dtype in calls
    ]


def psnr(x: Tensor, exact: Tensor) -> float:
    """PSNR in dB, with the range of ``exact`` as the peak."""
    span = exact.max() - exact.min()
    return (20 * torch.log10(span / (x - exact).square().mean().sqrt())).item()
