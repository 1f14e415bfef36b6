"""Small inputs of the networks, generated from names, so that all runs get the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from generated import det
from torch import Tensor

from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import TemporalVAE
from uav_core.sampling.pipeline import decode, sample

TEXT_TOKENS = 77

Size = tuple[int, int, int]
"""Frames, height and width in low resolution."""


def clip(size: Size) -> Tensor:
    """A clip (1, 3, t, h, w) in [-1, 1]."""
    return det("frames", (1, 3, *size)).mul(0.4).clamp(-1, 1)


def sample_inputs(context_dim: int, size: Size) -> dict[str, Any]:
    """The arguments of ``sample`` for two steps on a small clip."""
    return {
        "frames": clip(size),
        "context": det("context", (2, TEXT_TOKENS, context_dim)),
        "steps": 2,
        # 1, as a higher value would multiply rounding errors in the difference of the two texts.
        "guidance": 1.0,
        "noise_level": 20,
        "noise": det("noise", (1, 4, *size)),
        "low_res_noise": det("low_res_noise", (1, 3, *size)),
    }


def pass_inputs(context_dim: int, size: Size) -> tuple[Tensor, ...]:
    """Latent, time step, low-resolution frames, text and noise level of one pass."""
    return (
        det("noise", (1, 4, *size)),
        torch.full((1,), 500),
        clip(size),
        det("context", (2, TEXT_TOKENS, context_dim))[1:],
        torch.full((1,), 20),
    )


def decode_inputs(size: Size) -> tuple[Tensor, Tensor]:
    """The latents, not divided by their scale, and the frames for ``decode``."""
    return det("z", (1, 4, *size)).mul(0.1), clip(size)


def moved(value: Any, device: torch.device) -> Any:
    """``value`` with its tensors moved to the device, also in tuples and mappings."""
    if isinstance(value, Mapping):
        return {key: moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(item, device) for item in value)
    return value.to(device) if isinstance(value, Tensor) else value


def in_precision(inputs: tuple[Tensor, ...], network: TemporalUNet) -> tuple[Tensor, ...]:
    """U-Net inputs on the device and in the precision of its weights; integers keep their type."""
    weight = network.conv_in.weight
    return tuple(x.to(weight if x.is_floating_point() else weight.device) for x in inputs)


def sampled(network: TemporalUNet, size: Size, device: torch.device) -> Tensor:
    """Latents of the small clip, sampled by the core on ``device``, as fp32 on the CPU."""
    inputs = moved(sample_inputs(network.params.context_dim, size), device)
    return sample(network, **inputs).float().cpu()


def decoded(network: TemporalVAE, size: Size, device: torch.device) -> Tensor:
    """Frames (1, 3, t, 4h, 4w) of the small clip, decoded by the core on ``device``."""
    return decode(network, *moved(decode_inputs(size), device)).cpu()
