"""The layers that make the image upscaler a video upscaler (paper, section 3.2)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..devices import ways
from ..devices.layers import Layers
from .attention import Attention
from .layers import Resnet

ROTARY_DIMS = 32
BUCKETS = 32
MAX_DISTANCE = 32


def rotary_frequencies(dims: int = ROTARY_DIMS, theta: float = 10000.0) -> Tensor:
    """The table the checkpoints store as ``rotary_emb.freqs``: ``dims / 2`` values, fp32."""
    return theta ** -(torch.arange(0, dims, 2, dtype=torch.float32) / dims)


def rotation(length: int, freqs: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine, each (length, 1, 1, len(freqs), 2), of ``position * freqs``."""
    angle = torch.outer(torch.arange(length, device=like.device), freqs.to(like.device).float())
    cos, sin = angle.cos(), angle.sin()
    tables = torch.stack((cos, cos), dim=-1), torch.stack((-sin, sin), dim=-1)
    return tuple(table[:, None, None].to(like.dtype) for table in tables)  # type: ignore[return-value]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of the leading dims of every head of ``x`` (..., tokens, n, heads, dim).

    Interleaved pairs (2i, 2i + 1) turn, in place unless gradients are asked for; the other dims
    pass through.
    """
    x = x.clone() if torch.is_grad_enabled() else x
    pairs = x[..., : cos[0].numel()].unflatten(-1, cos.shape[-2:])
    turned = pairs.flip(-1)
    pairs.mul_(cos).addcmul_(turned, sin)
    return x


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


class Moments:
    """Tables that depend on the frames' positions in time only, made once a pass."""

    def __init__(self, length: int, device: torch.device) -> None:
        self.length = length
        self.buckets = relative_buckets(length, device)
        self._turns: dict[int, tuple[Tensor, Tensor]] = {}

    def turn(self, freqs: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """``rotation`` by ``freqs``; tables of one length are equal, so each is made once."""
        if len(freqs) not in self._turns:
            self._turns[len(freqs)] = rotation(self.length, freqs, like)
        return self._turns[len(freqs)]


class RotaryTable(nn.Module):
    """Holds the stored frequency table under the key that checkpoints use."""

    freqs: Tensor

    def __init__(self, dims: int = ROTARY_DIMS, device: Any = None) -> None:
        super().__init__()
        self.register_buffer("freqs", rotary_frequencies(dims).to(device))


class RelativePositionBias(nn.Module):
    """A learned bias per head and bucket of temporal distance."""

    def __init__(self, make: Layers, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = make.Embedding(BUCKETS, heads)

    def forward(self, buckets: Tensor, like: Tensor) -> Tensor:
        """(1, heads, length, length), in the dtype of ``like``; see ``relative_buckets``."""
        bias = self.relative_attention_bias(buckets)
        # Contiguous, as attention kernels need the mask to be.
        return rearrange(bias, "q k heads -> 1 heads q k").to(like.dtype).contiguous()


class Projections(nn.Module):
    """Learned layers of a U-Net attention: query, key and value (from ``source``), and output."""

    def __init__(self, make: Layers, channels: int, heads: int, source: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = make.Linear(channels, channels, bias=False)
        self.to_k = make.Linear(source, channels, bias=False)
        self.to_v = make.Linear(source, channels, bias=False)
        self.to_out = nn.ModuleList([make.Linear(channels, channels)])


class TemporalAttention(Projections):
    """Self-attention along time at every position, with rotary embedding and relative bias."""

    def __init__(self, make: Layers, channels: int, heads: int) -> None:
        super().__init__(make, channels, heads, channels)
        self.time_rel_pos_bias = RelativePositionBias(make, heads)
        # Heads narrower than the table are rotated whole.
        self.rotary_emb = RotaryTable(min(ROTARY_DIMS, channels // heads), make.device)

    def forward(self, x: Tensor, moments: Moments, attend: Attention) -> Tensor:
        """``x`` (b t n c) -> the same shape; tokens attend to their own position n only.

        ``moments`` are those of t frames.
        """
        q, k, v = self.to_q(x), self.to_k(x), self.to_v(x)
        turn = moments.turn(self.rotary_emb.freqs, q)
        q, k = (rotate(y.unflatten(-1, (self.heads, -1)), *turn).flatten(-2) for y in (q, k))
        bias = self.time_rel_pos_bias(moments.buckets, q)
        # Clip by clip: the positions of one clip are a view as a batch, those of several are not.
        outs = [
            attend(q, k, v, self.heads, mask=bias).transpose(0, 1)
            for q, k, v in zip(*(y.transpose(1, 2) for y in (q, k, v)), strict=True)
        ]
        return self.to_out[0](torch.stack(outs))


class StageModule(nn.Module):
    """Temporal resnet, then a 2-D resnet, then a 1x1 convolution, added to the input."""

    def __init__(self, make: Layers, channels: int, time_channels: int | None, kernel: int) -> None:
        super().__init__()
        resnet = partial(Resnet, make, channels, channels, eps=1e-6, time_channels=time_channels)
        self.resblocks_3d_temporal = resnet(temporal_kernels=(kernel, 3))
        self.resblocks_3d_spatial = resnet()
        self.shift_conv = make.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        # Not held in variables here, so that they are free once they were used.
        return ways.of(x.device).summed(
            self.shift_conv,
            self.resblocks_3d_spatial(self.resblocks_3d_temporal(x, time), time),
            x,
        )


class FeedForward(nn.Module):
    """GEGLU feed-forward with four times the channels inside."""

    def __init__(self, make: Layers, channels: int) -> None:
        super().__init__()
        # Indices 0 and 2 are the checkpoints' own; 1 is the dropout of training.
        self.net = nn.ModuleList(
            [
                GatedLinear(make, channels, channels * 4),
                nn.Identity(),
                make.Linear(channels * 4, channels),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """``x`` (b t n c) -> the same shape."""
        if torch.is_grad_enabled() or x.shape[1] == 1 or not ways.of(x.device).halves_tokens(x):
            return self._run(x)
        return torch.cat([self._run(half) for half in x.chunk(2, dim=1)], dim=1)

    def _run(self, x: Tensor) -> Tensor:
        for layer in self.net:
            x = layer(x)
        return x


class GatedLinear(nn.Module):
    """Linear to twice the width; the second half gates the first through an exact GELU."""

    def __init__(self, make: Layers, cin: int, cout: int) -> None:
        super().__init__()
        self.proj = make.Linear(cin, cout * 2)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        gate = F.gelu(gate)
        return gate * x if torch.is_grad_enabled() else gate.mul_(x)
