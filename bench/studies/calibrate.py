"""Measured memory per position, from which the nodes tell ComfyUI how much a pass will take."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import UPSCALE, TemporalVAE

from ..cases.case import Setup, unet_inputs, vae_inputs
from ..measure.memory import Peak, measure_peak

SIZES = (16, 32, 64)
QUICK_SIZES = (8, 16)


@torch.inference_mode()
def calibrate(network: nn.Module | None, setup: Setup) -> list[dict[str, Any]]:
    """Peak memory of a network at several sizes, and the nodes' constants that it implies."""
    sizes = QUICK_SIZES if setup.quick else SIZES
    if isinstance(network, TemporalUNet):
        return [calibrate_unet(network, size, setup.device) for size in sizes]
    if isinstance(network, TemporalVAE):
        return [calibrate_vae(network, size, setup.device) for size in sizes]
    return []


def calibrate_unet(network: TemporalUNet, size: int, device: torch.device) -> dict[str, Any]:
    """Bytes per latent position (b t h w) of a pass, and ComfyUI's ``memory_usage_factor``.

    ComfyUI budgets, with fused attention, positions * bytes per number * 0.01 * factor MiB.
    """
    # One clip: a CPU runs those of a batch one after the other, a GPU all together.
    inputs = tuple(x[:1] for x in unet_inputs(network.params, size, device))
    latent = inputs[0]
    peak = measure_peak(lambda: network(*inputs), device)
    positions = latent.numel() // latent.shape[1]
    per_position = total(peak) / positions
    return {
        "size": size,
        "peak_live": peak.live,
        "peak_allocated": peak.allocated,
        "bytes_per_position": per_position,
        "memory_usage_factor": per_position / (latent.element_size() * 0.01 * 2**20),
    }


def calibrate_vae(network: TemporalVAE, size: int, device: torch.device) -> dict[str, Any]:
    """Bytes per output pixel and frame of a decode, per channel too (``nodes/model/vae.py``)."""
    z, low_res = vae_inputs(network.params, size, device)
    peak = measure_peak(lambda: network.decode(z, low_res), device)
    per_pixel = total(peak) / (z.shape[2] * size * size * UPSCALE**2)
    return {
        "size": size,
        "peak_live": peak.live,
        "peak_allocated": peak.allocated,
        "bytes_per_pixel": per_pixel,
        "bytes_per_pixel_channel": per_pixel / network.params.channels[1],
    }


def total(peak: Peak) -> int:
    """What has to fit: on a GPU the allocator's peak, which holds scratch space too."""
    return peak.live if peak.allocated is None else peak.allocated
