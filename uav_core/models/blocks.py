"""The blocks of the temporal U-Net: attention, transformers and the levels made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..devices.layers import Layers
from ..devices.layout import added
from .attention import Attention
from .layers import Resnet, from_tokens, normed, per_frame, to_tokens
from .temporal import FeedForward, Moments, Projections, TemporalAttention


@dataclass(frozen=True)
class Conditions:
    """Inputs that all blocks share: time, text, and the attention kernel to use."""

    time: Tensor
    """(b, time_dim), time step plus noise level, already through SiLU."""
    text: Tensor
    """(b, tokens, context_dim)."""
    attend: Attention
    moments: Moments
    """Tables for the attention along time."""


class TextOrSelfAttention(Projections):
    """Attention over the text (``context_dim`` given) or over the tokens of the same frame."""

    def __init__(
        self, make: Layers, channels: int, heads: int, context_dim: int | None = None
    ) -> None:
        super().__init__(make, channels, heads, context_dim or channels)
        self.over_text = context_dim is not None

    def forward(self, x: Tensor, text: Tensor, attend: Attention) -> Tensor:
        """``x`` (b t n c) -> the same shape."""
        b, t = x.shape[:2]
        # All frames share one text, so they are joined as queries instead of repeating its keys.
        flat = "b t n c -> b (t n) c" if self.over_text else "b t n c -> (b t) n c"
        q = rearrange(self.to_q(x), flat)
        source = text if self.over_text else rearrange(x, flat)
        out = attend(q, self.to_k(source), self.to_v(source), self.heads)
        return self.to_out[0](out).reshape(b, t, x.shape[2], -1)


class TransformerBlock(nn.Module):
    """Text or self-attention, text attention, temporal attention and feed-forward."""

    def __init__(
        self, make: Layers, channels: int, heads: int, context_dim: int, text_only: bool
    ) -> None:
        super().__init__()
        self.norm1 = make.LayerNorm(channels)
        first = context_dim if text_only else None
        self.attn1 = TextOrSelfAttention(make, channels, heads, first)
        self.norm2 = make.LayerNorm(channels)
        self.attn2 = TextOrSelfAttention(make, channels, heads, context_dim)
        self.norm_temporal = make.LayerNorm(channels)
        self.attn_temporal = TemporalAttention(make, channels, heads)
        self.norm3 = make.LayerNorm(channels)
        self.ff = FeedForward(make, channels)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        """``x`` (b t n c), which is overwritten unless gradients are asked for."""
        x = added(x, self.attn1(self.norm1(x), cond.text, cond.attend))
        x = added(x, self.attn2(self.norm2(x), cond.text, cond.attend))
        x = added(x, self.attn_temporal(self.norm_temporal(x), cond.moments, cond.attend))
        return added(x, self.ff(self.norm3(x)))


class Transformer(nn.Module):
    """Temporal resnet, then the transformer block on tokens, added to the temporal resnet."""

    def __init__(
        self, make: Layers, channels: int, heads: int, context_dim: int, text_only: bool
    ) -> None:
        super().__init__()
        self.resblock_temporal = Resnet(make, channels, channels, eps=1e-6, temporal_kernels=(3, 3))
        self.norm = make.GroupNorm(32, channels, eps=1e-6)
        self.proj_in = make.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(make, channels, heads, context_dim, text_only)]
        )
        self.proj_out = make.Linear(channels, channels)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        x = self.resblock_temporal(x)
        tokens = self.proj_in(to_tokens(per_frame(partial(normed, self.norm), x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, cond)
        return added(from_tokens(self.proj_out(tokens), *x.shape[-2:]), x)


Build = Callable[..., nn.Module]
"""Makes a block of given widths, with all other arguments already set."""


class Stage(nn.Module):
    """Resnets (each followed by a transformer where the level has attention) of one level."""

    def __init__(
        self, widths: list[tuple[int, int]], resnet: Build, transformer: Build | None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([resnet(*each) for each in widths])
        built = transformer and [transformer(cout) for _, cout in widths]
        self.attentions = nn.ModuleList(built) if built else None

    def step(self, i: int, x: Tensor, cond: Conditions) -> Tensor:
        x = self.resnets[i](x, cond.time)
        return x if self.attentions is None else self.attentions[i](x, cond)


class DownStage(Stage):
    """A level on the way down; returns its skips as well."""

    def __init__(self, *args: Any, downsample: Build | None) -> None:
        super().__init__(*args)
        self.downsamplers = nn.ModuleList([downsample()]) if downsample else None

    def forward(self, x: Tensor, cond: Conditions) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for i in range(len(self.resnets)):
            x = self.step(i, x, cond)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class UpStage(Stage):
    """A level on the way up; takes its input and its skips off the end of the list.

    Only the list holds them, so that their memory is free as soon as they are used.
    """

    def __init__(self, *args: Any, upsample: Build | None) -> None:
        super().__init__(*args)
        self.upsamplers = nn.ModuleList([upsample()]) if upsample else None

    def forward(self, held: list[Tensor], cond: Conditions) -> Tensor:
        x = held.pop()
        for i in range(len(self.resnets)):
            x = torch.cat([x, held.pop()], dim=1)
            x = self.step(i, x, cond)
        if self.upsamplers is not None:
            # The skip's size, not twice our own: sides need not be multiples of 8.
            h, w = held[-1].shape[-2:]
            x = self.upsamplers[0](x, (h, w))
        return x


class MidStage(nn.Module):
    """Resnet, transformer, resnet at the lowest resolution."""

    def __init__(self, channels: int, resnet: Build, transformer: Build) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([resnet(channels, channels) for _ in range(2)])
        self.attentions = nn.ModuleList([transformer(channels)])

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        x = self.resnets[0](x, cond.time)
        x = self.attentions[0](x, cond)
        return self.resnets[1](x, cond.time)


class TimeEmbedding(nn.Module):
    """Sinusoid (cosines first, then sines) through two linear layers."""

    def __init__(self, make: Layers, sinusoid: int, dim: int) -> None:
        super().__init__()
        self.sinusoid = sinusoid
        self.linear_1 = make.Linear(sinusoid, dim)
        self.linear_2 = make.Linear(dim, dim)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.sinusoid // 2
        index = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angle = timestep.float()[:, None] * torch.exp(index * (-math.log(10000.0) / half))
        wave = torch.cat((angle.cos(), angle.sin()), dim=-1)
        return self.linear_2(F.silu(self.linear_1(wave.to(dtype))))
