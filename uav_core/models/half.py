"""The VAEs in fp16, whose range their activations would exceed.

Every branch of a VAE begins with a norm, so its activations may be made smaller by any factor if
the norms' epsilon is made smaller too. In fp32 a power of two changes no digit. fp16 then differs
from fp32 about a ninth as much as bf16 does (docs/parity.md).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .vae import EPS, TemporalVAE

SCALE = 2.0**-6
"""The factor. With it, activations up to 4 million fit, and those from 0.004 keep every digit.

Not smaller: PyTorch's own norm on CUDA keeps 1 / sqrt(variance + epsilon) in fp16, where up to
65504 fit; for a constant input it is now 64000.
"""

_FROM_NORM = ("conv_in", "conv1", "conv2", "conv_3d", "proj_attn")
"""Layers whose input keeps its size, being normalised or a network's input: all is made smaller."""
_FROM_ACTIVATIONS = ("conv_shortcut", "conv", "shift")
"""Layers whose input is smaller already: only the bias is made smaller."""
# The low-resolution frames come without a layer in front of them.
_FRAMES_NORM, _FRAMES_SHORTCUT = (
    f"decoder.condition_in.0.{name}" for name in ("norm1", "conv_shortcut")
)


def fitted_to_half(vae: TemporalVAE, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Prepare ``vae`` for fp16, and return the ``weights`` that it then needs, in fp16."""
    for name, module in vae.named_modules():
        if isinstance(module, nn.GroupNorm) and name != _FRAMES_NORM:
            module.eps = EPS * SCALE**2
    return {key: (x.float() * _factor(key)).half() for key, x in weights.items()}


def _factor(key: str) -> float:
    """The factor of one of a VAE's tensors."""
    layer, _, kind = key.rpartition(".")
    name = layer.rpartition(".")[2]
    if name in _FROM_NORM or layer == _FRAMES_SHORTCUT:
        return SCALE
    if name in _FROM_ACTIVATIONS and kind == "bias":
        return SCALE
    # Multiplies activations with what it makes of smaller ones.
    return 1 / SCALE if name == "scale" and kind == "weight" else 1.0


def overflowed(result: Tensor) -> bool:
    """Whether a network's result has infinite or undefined values; waits for the device.

    An activation that overflows makes the next norm, and so the whole result, undefined.
    """
    return not bool(torch.isfinite(result.sum()))
