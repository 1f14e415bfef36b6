"""Memory at common sizes, found on any machine without computing values.

The networks run on PyTorch's meta device, on tensors that have a size but no values, as on a GPU.
Counted are the bytes that tensors hold, as everywhere in this benchmark. Scratch space inside
kernels and fragmentation of the allocator are not included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from uav_core.devices import memory
from uav_core.devices.memory import Sparing
from uav_core.models.budgets import decode_bytes, pass_bytes
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import UPSCALE, TemporalVAE, VAEParams
from uav_core.sampling.segments import DECODE_GROUP, SEGMENT_LENGTH

from ..cases.case import TEXT_TOKENS, TINY_UNET, TINY_VAE
from ..measure.memory import measure_peak

META = torch.device("meta")
SIZES = ((128, 128), (256, 256), (180, 320), (270, 480), (360, 640))
"""(h, w) of the low-resolution frames, or of a tile of them."""
QUICK_SIZES = ((16, 16),)
PRECISIONS = {"fp16": torch.float16, "fp32": torch.float32}
VAE_PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
HALVES = 2
"""Both texts of guidance in a pass; ComfyUI runs them one by one if both do not fit."""


@dataclass(frozen=True)
class Held:
    """Memory for frames of one size, or for weights."""

    title: str
    bytes: dict[str, int]
    """Bytes by network and precision: a segment in the U-Net, or a group in the decoder."""


def fused(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention as by a kernel that does not store scores."""
    return torch.empty_like(q)


@torch.inference_mode()
def measure_real_sizes(quick: bool) -> list[Held]:
    """Memory of the weights, then of every size, in every precision.

    For every size: with whole layers, in the most memory-saving way, and as the nodes request it.
    """
    unet_params, vae_params = (TINY_UNET, TINY_VAE) if quick else (UNetParams(), VAEParams())
    networks = {
        **{
            f"U-Net pass, {name}": TemporalUNet(unet_params, dtype=dtype, device=META)
            for name, dtype in PRECISIONS.items()
        },
        **{
            f"decode, {name}": TemporalVAE(vae_params, dtype=dtype, device=META, attend=fused)
            for name, dtype in VAE_PRECISIONS.items()
        },
    }
    rows = [Held("weights besides", {name: weight_bytes(net) for name, net in networks.items()})]
    for h, w in QUICK_SIZES if quick else SIZES:
        size = f"{w}x{h} to {UPSCALE * w}x{UPSCALE * h}"
        for spared in (False, True):
            title = f"{size}, sparing" if spared else size
            held = {name: peak(net, h, w, spared) for name, net in networks.items()}
            asked = {name: budget(net, h, w, spared) for name, net in networks.items()}
            rows += [Held(title, held), Held("asked for", asked)]
    return rows


def peak(network: nn.Module, h: int, w: int, spared: bool = False) -> int:
    """Bytes of a pass over a segment, for both texts, or of decoding a group of frames.

    ``spared``: in the most memory-saving way, with one text at a time; else with whole layers.
    """
    run: Callable[[], Tensor]
    if isinstance(network, TemporalUNet):
        inputs = unet_inputs(network, 1 if spared else HALVES, h, w)
        run = partial(network, *inputs, fused)
    else:
        assert isinstance(network, TemporalVAE)
        run = partial(network.decode, *vae_inputs(network, h, w))
    with (
        mock.patch.object(memory, "free", lambda _: 2**50),
        memory.sparing(Sparing.STRIPES if spared else Sparing.NONE),
    ):
        return measure_peak(run, META).live


def budget(network: nn.Module, h: int, w: int, spared: bool = False) -> int:
    """Bytes that the nodes request for the work of ``peak``."""
    each = next(network.parameters()).itemsize
    if isinstance(network, TemporalUNet):
        halves = 1 if spared else HALVES
        return pass_bytes(network.params, halves, SEGMENT_LENGTH, h, w, each, spared)
    assert isinstance(network, TemporalVAE)
    return decode_bytes(network.params, DECODE_GROUP, h, w, each, spared)


def unet_inputs(network: TemporalUNet, halves: int, h: int, w: int) -> tuple[Tensor, ...]:
    """Inputs like those of ``cases.unet_inputs``, without values, in the network's precision."""
    p, dtype, frames = network.params, network.dtype, (SEGMENT_LENGTH, h, w)
    levels = blank(torch.int64, halves)
    return (
        blank(dtype, halves, p.out_channels, *frames),
        levels,
        blank(dtype, halves, p.in_channels - p.out_channels, *frames),
        blank(dtype, halves, TEXT_TOKENS, p.context_dim),
        levels,
    )


def vae_inputs(
    network: TemporalVAE, h: int, w: int, group: int = DECODE_GROUP
) -> tuple[Tensor, Tensor]:
    """Inputs like those of ``cases.vae_inputs``, without values."""
    frames = (group, h, w)
    channels = network.params.latent_channels
    return blank(torch.float32, 1, channels, *frames), blank(torch.float32, 1, 3, *frames)


def blank(dtype: torch.dtype, *shape: int) -> Tensor:
    """A tensor without values."""
    return torch.empty(shape, dtype=dtype, device=META)


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all weights."""
    return sum(x.numel() * x.element_size() for x in network.parameters())
