"""Distillation: a narrower temporal decoder learns to give the pictures of the wider one.

Both have the same layers below full size, and these do not change. So the wide decoder runs once
for every piece, and its tensor before full size and its picture are kept. The narrow decoder's
layers at full size learn that picture from that tensor: about one second a step on a CPU.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models.layers import activated, per_frame
from ..models.vae import LATENT_SCALE, TemporalVAE
from .data.batches import BatchParams, Source
from .fit.clips import make_clip
from .fit.latents import Latents, pixels
from .loop import LoopParams, Loss, autocast
from .vae import VAELoss, likeness

WEIGHTS = VAELoss(gradient=1.0)

Piece = tuple[Tensor, Tensor]
"""The tensor before full size (c t 2h 2w) and the picture (3 t 4h 4w), in half precision."""


class FullSize(nn.Module):
    """The layers of a decoder from its last upsampler on."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.enlarge = decoder.up_blocks[-2].upsamplers[0]
        self.resnets = decoder.up_blocks[-1].resnets
        self.norm, self.conv = decoder.conv_norm_out, decoder.conv_out

    def forward(self, x: Tensor) -> Tensor:
        """Decode (b c t 2h 2w) to the picture (b 3 t 4h 4w)."""
        x = self.enlarge(x)
        for resnet in self.resnets:
            x = resnet(x)
        return per_frame(self.conv, activated(self.norm, x))


def learning_layers(student: TemporalVAE) -> FullSize:
    """The student's layers at full size; all others are frozen."""
    student.requires_grad_(False)
    return FullSize(student.decoder).requires_grad_(True)


def pieces_of(
    teacher: TemporalVAE, source: Source, latents: Latents, p: BatchParams, seed: int
) -> Callable[[int], Piece]:
    """A function that gives piece ``n``, made once from ``seed`` and ``n`` alone, then cached."""
    device = teacher.post_quant_conv.weight.device
    seen: list[Tensor] = []
    hook = FullSize(teacher.decoder).enlarge
    hook.register_forward_pre_hook(lambda _, given: seen.append(given[0]))

    @functools.cache
    @torch.no_grad()
    def piece(n: int) -> Piece:
        made = make_clip(source, seed, p.frames, p.size, n)
        clean, low = (pixels(torch.from_numpy(x)[None].to(device)) for x in made)
        rng = np.random.default_rng([seed, n, 1])
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            z, _ = latents(clean, low, rng)
        picture = teacher.decode(z / LATENT_SCALE, low)
        return seen.pop()[0].half().cpu(), picture[0].half().cpu()

    return piece


def distillation_loss(
    layers: FullSize, piece: Callable[[int], Piece], count: int, loop: LoopParams, batch: int
) -> Loss:
    """Loss between ``layers`` and the teacher on ``batch`` of the first ``count`` pieces."""

    def loss(rng: np.random.Generator) -> dict[str, Tensor]:
        drawn = [piece(int(n)) for n in rng.integers(count, size=batch)]
        x, picture = (torch.stack(y).float().to(loop.device) for y in zip(*drawn, strict=True))
        with autocast(loop):
            out = layers(x.contiguous(memory_format=torch.channels_last_3d)).float()
        return likeness(out, picture, WEIGHTS)

    return loss
