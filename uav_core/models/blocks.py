"""The blocks of the temporal U-Net: attention, transformers and the levels they make up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..devices.layers import PLAIN
from .attention import Attention
from .layers import Downsample, Resnet, Upsample, added, from_tokens, normed, per_frame, to_tokens
from .temporal import FeedForward, Moments, TemporalAttention


@dataclass(frozen=True)
class Conditions:
    """What every block may look at: time, text, and the attention kernel to use."""

    time: Tensor
    """(b, time_dim), time step plus noise level, already through SiLU."""
    text: Tensor
    """(b, tokens, context_dim)."""
    attend: Attention
    moments: Moments
    """What the attention along time knows of the frames' places in time."""


class TextOrSelfAttention(nn.Module):
    """Attention over the text (``context_dim`` given) or over the tokens of the same frame."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context_dim: int | None,
        *,
        operations: Any = PLAIN,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.over_text = context_dim is not None
        source = channels if context_dim is None else context_dim
        self.to_q = operations.Linear(channels, channels, bias=False, **factory)
        self.to_k = operations.Linear(source, channels, bias=False, **factory)
        self.to_v = operations.Linear(source, channels, bias=False, **factory)
        self.to_out = nn.ModuleList([operations.Linear(channels, channels, **factory)])

    def forward(self, x: Tensor, text: Tensor, attend: Attention) -> Tensor:
        """``x`` (b t n c) -> the same shape."""
        b, t = x.shape[:2]
        # All frames share one text, so they queue up as queries instead of repeating its keys.
        flat = "b t n c -> b (t n) c" if self.over_text else "b t n c -> (b t) n c"
        q = rearrange(self.to_q(x), flat)
        source = text if self.over_text else rearrange(x, flat)
        out = attend(q, self.to_k(source), self.to_v(source), self.heads)
        return self.to_out[0](out).reshape(b, t, x.shape[2], -1)


class TransformerBlock(nn.Module):
    """Text or self-attention, text attention, temporal attention and feed-forward."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context_dim: int,
        text_only: bool,
        *,
        operations: Any = PLAIN,
        **factory: Any,
    ) -> None:
        super().__init__()
        made = {"operations": operations, **factory}
        first = context_dim if text_only else None
        self.norm1 = operations.LayerNorm(channels, **factory)
        self.attn1 = TextOrSelfAttention(channels, heads, first, **made)
        self.norm2 = operations.LayerNorm(channels, **factory)
        self.attn2 = TextOrSelfAttention(channels, heads, context_dim, **made)
        self.norm_temporal = operations.LayerNorm(channels, **factory)
        self.attn_temporal = TemporalAttention(channels, heads, **made)
        self.norm3 = operations.LayerNorm(channels, **factory)
        self.ff = FeedForward(channels, **made)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        """``x`` (b t n c), which is overwritten unless gradients are asked for."""
        x = added(x, self.attn1(self.norm1(x), cond.text, cond.attend))
        x = added(x, self.attn2(self.norm2(x), cond.text, cond.attend))
        x = added(x, self.attn_temporal(self.norm_temporal(x), cond.moments, cond.attend))
        return added(x, self.ff(self.norm3(x)))


class Transformer(nn.Module):
    """Temporal resnet, then the transformer block on tokens, added to the temporal resnet."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context_dim: int,
        text_only: bool,
        *,
        operations: Any = PLAIN,
        **factory: Any,
    ) -> None:
        super().__init__()
        made = {"operations": operations, **factory}
        self.resblock_temporal = Resnet(
            channels, channels, eps=1e-6, temporal_kernels=(3, 3), **made
        )
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(channels, heads, context_dim, text_only, **made)]
        )
        self.proj_out = operations.Linear(channels, channels, **factory)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        x = self.resblock_temporal(x)
        tokens = self.proj_in(to_tokens(per_frame(partial(normed, self.norm), x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, cond)
        return added(from_tokens(self.proj_out(tokens), *x.shape[-2:]), x)


class Stage(nn.Module):
    """Resnets (each followed by a transformer where the level has attention) of one level."""

    def __init__(
        self, widths: list[tuple[int, int]], transformer: dict | None, resnet: dict
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(cin, cout, **resnet) for cin, cout in widths])
        self.attentions = (
            nn.ModuleList([Transformer(cout, **transformer) for _, cout in widths])
            if transformer
            else None
        )

    def step(self, i: int, x: Tensor, cond: Conditions) -> Tensor:
        x = self.resnets[i](x, cond.time)
        return x if self.attentions is None else self.attentions[i](x, cond)


class DownStage(Stage):
    """A level on the way down; gives its skips as well."""

    def __init__(self, *args: Any, downsample: bool, made: dict) -> None:
        super().__init__(*args)
        width = args[0][-1][1]
        self.downsamplers = (
            nn.ModuleList([Downsample(width, padding=1, **made)]) if downsample else None
        )

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

    The list and nobody else holds them, so that they can go as soon as they are used.
    """

    def __init__(self, *args: Any, upsample: bool, made: dict) -> None:
        super().__init__(*args)
        width = args[0][-1][1]
        self.upsamplers = nn.ModuleList([Upsample(width, **made)]) if upsample else None

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

    def __init__(self, channels: int, transformer: dict, resnet: dict) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([Resnet(channels, channels, **resnet) for _ in range(2)])
        self.attentions = nn.ModuleList([Transformer(channels, **transformer)])

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        x = self.resnets[0](x, cond.time)
        x = self.attentions[0](x, cond)
        return self.resnets[1](x, cond.time)


class TimeEmbedding(nn.Module):
    """Sinusoid (cosines first, then sines) through two linear layers."""

    def __init__(self, sinusoid: int, dim: int, *, operations: Any = PLAIN, **factory: Any) -> None:
        super().__init__()
        self.sinusoid = sinusoid
        self.linear_1 = operations.Linear(sinusoid, dim, **factory)
        self.linear_2 = operations.Linear(dim, dim, **factory)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.sinusoid // 2
        index = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angle = timestep.float()[:, None] * torch.exp(index * (-math.log(10000.0) / half))
        wave = torch.cat((angle.cos(), angle.sin()), dim=-1)
        return self.linear_2(F.silu(self.linear_1(wave.to(dtype))))
