"""Memory at the sizes that people use, on any machine: computed without computing.

The networks run on PyTorch's meta device, on tensors that have a size but no values, in the way
they go on a GPU. Counted are the bytes that tensors hold, as everywhere in this benchmark: the
scratch space inside kernels and what an allocator loses to fragments come on top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import UPSCALE, TemporalVAE, VAEParams
from uav_core.segments import DECODE_GROUP, SEGMENT_LENGTH

from .cases import TEXT_TOKENS, TINY_UNET, TINY_VAE
from .memory import measure_peak

META = torch.device("meta")
SIZES = ((128, 128), (256, 256), (180, 320), (270, 480), (360, 640))
"""(h, w) of the low-resolution frames, or of a tile of them."""
QUICK_SIZES = ((8, 8),)
PRECISIONS = (torch.float16, torch.float32)
VAE_PRECISIONS = (torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class Held:
    """Peaks in bytes, by precision, of frames of one size."""

    height: int
    width: int
    both: dict[torch.dtype, int]
    """A pass of a segment with both halves of guidance together."""
    half: dict[torch.dtype, int]
    """The same with one half, as ComfyUI runs them where both do not fit."""
    decode: dict[torch.dtype, int]
    """A group of frames through the decoder."""


@dataclass(frozen=True)
class Weights:
    """Bytes of weights by precision."""

    unet: dict[torch.dtype, int]
    vae: dict[torch.dtype, int]


def fused(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention by a kernel that holds no scores."""
    return torch.empty_like(q)


@torch.inference_mode()
def measure_real_sizes(quick: bool) -> tuple[list[Held], Weights]:
    """Every size in every precision, and the weights that are there besides."""
    unet_params, vae_params = (TINY_UNET, TINY_VAE) if quick else (UNetParams(), VAEParams())
    unets = {d: TemporalUNet(unet_params, dtype=d, device=META) for d in PRECISIONS}
    vaes = {d: TemporalVAE(vae_params, dtype=d, device=META) for d in VAE_PRECISIONS}
    rows = [
        Held(
            h,
            w,
            {d: unet_peak(net, 2, h, w) for d, net in unets.items()},
            {d: unet_peak(net, 1, h, w) for d, net in unets.items()},
            {d: vae_peak(net, h, w) for d, net in vaes.items()},
        )
        for h, w in (QUICK_SIZES if quick else SIZES)
    ]
    return rows, Weights(
        {d: weight_bytes(net) for d, net in unets.items()},
        {d: weight_bytes(net) for d, net in vaes.items()},
    )


def unet_peak(network: TemporalUNet, halves: int, h: int, w: int) -> int:
    """Bytes of a pass over a segment of so large frames."""
    p, dtype, frames = network.params, network.dtype, (SEGMENT_LENGTH, h, w)
    levels = blank(torch.int64, halves)
    inputs = (
        blank(dtype, halves, p.out_channels, *frames),
        levels,
        blank(dtype, halves, p.in_channels - p.out_channels, *frames),
        blank(dtype, halves, TEXT_TOKENS, p.context_dim),
        levels,
    )
    return held(lambda: network(*inputs, fused))


def vae_peak(network: TemporalVAE, h: int, w: int) -> int:
    """Bytes of decoding a group of frames."""
    z = blank(torch.float32, 1, network.params.latent_channels, DECODE_GROUP, h, w)
    frames = blank(torch.float32, 1, 3, DECODE_GROUP, h, w)
    return held(lambda: network.decode(z, frames))


def held(call: Callable[[], Tensor]) -> int:
    """Peak bytes of a call on the meta device."""
    return measure_peak(call, META).live


def blank(dtype: torch.dtype, *shape: int) -> Tensor:
    """A tensor without values."""
    return torch.empty(shape, dtype=dtype, device=META)


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all weights."""
    return sum(x.numel() * x.element_size() for x in network.parameters())


def upscaled(row: Held) -> str:
    """Sizes before and after, width first."""
    h, w = row.height, row.width
    return f"{w}x{h} to {UPSCALE * w}x{UPSCALE * h}"
