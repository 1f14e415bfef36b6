"""The layers that make the image upscaler a video upscaler (paper, section 3.2)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..devices.linear import linear_layer
from .attention import Attention
from .layers import Resnet, added, per_frame

ROTARY_DIMS = 32
BUCKETS = 32
MAX_DISTANCE = 32
FEW_TOKENS = 512
"""Tokens of a clip that take no memory worth saving, and too little time to be split."""


def rotary_frequencies(dims: int = ROTARY_DIMS, theta: float = 10000.0) -> Tensor:
    """The table the checkpoints store as ``rotary_emb.freqs``: ``dims / 2`` values, fp32."""
    return theta ** -(torch.arange(0, dims, 2, dtype=torch.float32) / dims)


def rotation(length: int, freqs: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine (length, len(freqs)) of ``position * freqs``, as ``like``."""
    angle = torch.outer(torch.arange(length, device=like.device), freqs.to(like.device).float())
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of the leading dims of ``x`` (..., tokens, dim), two for each cosine.

    Interleaved pairs (2i, 2i + 1) turn; the other dims pass through.
    """
    dims = 2 * cos.shape[-1]
    even, odd = x[..., 0:dims:2], x[..., 1:dims:2]
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned, x[..., dims:]), dim=-1)


def relative_buckets(length: int, device: torch.device | None = None) -> Tensor:
    """T5's bidirectional buckets of ``key - query``, as a (length, length) table of indices."""
    position = torch.arange(length, device=device)
    relative = position[None, :] - position[:, None]
    half = BUCKETS // 2
    exact = half // 2
    distance = relative.abs()
    # Beyond `exact`, buckets grow logarithmically up to MAX_DISTANCE and then saturate.
    scaled = torch.log(distance.clamp(min=1).float() / exact) / math.log(MAX_DISTANCE / exact)
    far = (exact + (scaled * (half - exact)).long()).clamp(max=half - 1)
    return (relative > 0).long() * half + torch.where(distance < exact, distance, far)


class RotaryTable(nn.Module):
    """Holder of the stored frequency table, under the key the checkpoints use."""

    freqs: Tensor

    def __init__(self, dims: int = ROTARY_DIMS, device: Any = None) -> None:
        super().__init__()
        self.register_buffer("freqs", rotary_frequencies(dims).to(device))


class RelativePositionBias(nn.Module):
    """A learned bias per head and bucket of temporal distance."""

    def __init__(self, heads: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.relative_attention_bias = operations.Embedding(BUCKETS, heads, **factory)

    def forward(self, buckets: Tensor, like: Tensor) -> Tensor:
        """(1, heads, length, length), in the dtype of ``like``; see ``relative_buckets``."""
        bias = self.relative_attention_bias(buckets)
        return rearrange(bias, "q k heads -> 1 heads q k").to(like.dtype)


class TemporalAttention(nn.Module):
    """Self-attention along time at every position, with rotary embedding and relative bias."""

    def __init__(self, channels: int, heads: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = linear_layer(operations)(channels, channels, bias=False, **factory)
        self.to_k = linear_layer(operations)(channels, channels, bias=False, **factory)
        self.to_v = linear_layer(operations)(channels, channels, bias=False, **factory)
        self.to_out = nn.ModuleList([linear_layer(operations)(channels, channels, **factory)])
        self.time_rel_pos_bias = RelativePositionBias(heads, operations=operations, **factory)
        # Heads narrower than the table turn in full.
        self.rotary_emb = RotaryTable(min(ROTARY_DIMS, channels // heads), factory.get("device"))

    def forward(self, x: Tensor, buckets: Tensor, attend: Attention) -> Tensor:
        """``x`` (b t n c) -> the same shape; tokens attend to their own position n only.

        ``buckets`` are those of t frames.
        """
        batch = x.shape[0]
        q, k, v = (
            rearrange(proj(x), "b t n c -> (b n) t c") for proj in (self.to_q, self.to_k, self.to_v)
        )
        turn = rotation(x.shape[1], self.rotary_emb.freqs, q)
        q, k = (
            rearrange(
                rotate(rearrange(y, "s t (h d) -> s h t d", h=self.heads), *turn),
                "s h t d -> s t (h d)",
            )
            for y in (q, k)
        )
        out = attend(q, k, v, self.heads, mask=self.time_rel_pos_bias(buckets, q))
        # In one piece: of a view, a linear layer makes a batch with as many copies of its weights.
        return self.to_out[0](rearrange(out, "(b n) t c -> b t n c", b=batch).contiguous())


class StageModule(nn.Module):
    """Temporal resnet, then a 2-D resnet, then a 1x1 convolution, added to the input."""

    def __init__(
        self,
        channels: int,
        time_channels: int | None,
        kernel: int,
        *,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        shared = {"eps": 1e-6, "time_channels": time_channels, "operations": operations, **factory}
        self.resblocks_3d_temporal = Resnet(
            channels, channels, temporal_kernels=(kernel, 3), **shared
        )
        self.resblocks_3d_spatial = Resnet(channels, channels, **shared)
        self.shift_conv = operations.Conv2d(channels, channels, 1, **factory)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.resblocks_3d_temporal(x, time)
        h = self.resblocks_3d_spatial(h, time)
        return added(per_frame(self.shift_conv, h), x)


class FeedForward(nn.Module):
    """GEGLU feed-forward with four times the channels inside."""

    def __init__(self, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        # Indices 0 and 2 are the checkpoints' own; 1 is the dropout of training.
        self.net = nn.ModuleList(
            [
                GatedLinear(channels, channels * 4, operations=operations, **factory),
                nn.Identity(),
                linear_layer(operations)(channels * 4, channels, **factory),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (b t n c) -> the same shape."""
        if torch.is_grad_enabled() or x.shape[1] == 1 or x[0, ..., 0].numel() <= FEW_TOKENS:
            return self._run(x)
        # The widest tensor of the network would set its peak: half the frames at a time.
        return torch.cat([self._run(half) for half in x.chunk(2, dim=1)], dim=1)

    def _run(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class GatedLinear(nn.Module):
    """Linear to twice the width; the second half gates the first through an exact GELU."""

    def __init__(self, cin: int, cout: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.proj = linear_layer(operations)(cin, cout * 2, **factory)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        gate = F.gelu(gate)
        return gate * x if torch.is_grad_enabled() else gate.mul_(x)
