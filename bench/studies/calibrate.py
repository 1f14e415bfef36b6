"""Compares measured memory with the memory that the nodes request from ComfyUI."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from uav_core.models.budgets import decode_bytes, pass_bytes
from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import UPSCALE, TemporalVAE

from ..cases.case import Setup, unet_inputs, vae_inputs
from ..measure.memory import Peak, measure_peak

SIZES = (16, 32, 64)
QUICK_SIZES = (8, 16)


@torch.inference_mode()
def calibrate(network: nn.Module | None, setup: Setup) -> list[dict[str, Any]]:
    """Peak memory of a network at several sizes, and the request of the nodes relative to it."""
    sizes = QUICK_SIZES if setup.quick else SIZES
    if isinstance(network, TemporalUNet):
        return [calibrate_unet(network, size, setup.device) for size in sizes]
    if isinstance(network, TemporalVAE):
        return [calibrate_vae(network, size, setup.device) for size in sizes]
    return []


def calibrate_unet(network: TemporalUNet, size: int, device: torch.device) -> dict[str, Any]:
    """Bytes per latent position (b t h w) of a pass, and the nodes' request over the peak."""
    # One clip, as a CPU runs the clips of a batch one by one, a GPU all at once.
    inputs = tuple(x[:1] for x in unet_inputs(network.params, size, device))
    latent = inputs[0]
    peak = measure_peak(lambda: network(*inputs), device)
    asked = pass_bytes(network.params, 1, *latent.shape[2:], each=latent.element_size())
    return {
        "size": size,
        "peak_live": peak.live,
        "peak_allocated": peak.allocated,
        "bytes_per_position": total(peak) * latent.shape[1] / latent.numel(),
        "asked": asked / total(peak),
    }


def calibrate_vae(network: TemporalVAE, size: int, device: torch.device) -> dict[str, Any]:
    """Bytes per output pixel and frame of a decode, and the nodes' request over the peak."""
    z, low_res = vae_inputs(network.params, size, device)
    peak = measure_peak(lambda: network.decode(z, low_res), device)
    frames, each = z.shape[2], next(network.parameters()).element_size()
    return {
        "size": size,
        "peak_live": peak.live,
        "peak_allocated": peak.allocated,
        "bytes_per_pixel": total(peak) / (frames * size * size * UPSCALE**2),
        "asked": decode_bytes(network.params, frames, size, size, each) / total(peak),
    }


def total(peak: Peak) -> int:
    """Bytes that must fit: on a GPU the allocator's peak, which includes scratch space."""
    return peak.live if peak.allocated is None else peak.allocated
