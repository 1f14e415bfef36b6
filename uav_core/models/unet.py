"""The temporal U-Net (paper, figure 2): Stable Diffusion's x4 upscaler with layers along time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..errors import CheckpointMismatchError
from .attention import Attention, scaled_dot_product
from .layers import (
    Downsample,
    Resnet,
    Upsample,
    activated,
    added,
    from_tokens,
    per_frame,
    to_tokens,
)
from .linear import linear_layer
from .temporal import (
    ROTARY_DIMS,
    FeedForward,
    RotaryTable,
    StageModule,
    TemporalAttention,
    relative_buckets,
)

ALONE_FROM = 8 * 32 * 32
"""Positions (t h w) of a clip from which a CPU runs it alone. With fewer the weights, read once for
every clip, would take longer than the arithmetic, and there is little memory to save."""


@dataclass(frozen=True)
class UNetParams:
    """Every size of the network; the defaults are the released model (691.0 M parameters)."""

    in_channels: int = 7
    out_channels: int = 4
    channels: tuple[int, ...] = (256, 512, 512, 1024)
    resnets: int = 2
    attention: tuple[bool, ...] = (False, True, True, True)
    text_only: tuple[bool, ...] = (True, True, True, False)
    """Levels whose first attention looks at the text; the others look at the frame itself."""
    context_dim: int = 1024
    heads: int = 8
    noise_levels: int = 1000
    time_dim: int = 1024
    stage_kernel: int = 5
    stage_time: bool = True

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor]) -> UNetParams:
        """Read every size off the shapes of canonical weights.

        Raises CheckpointMismatchError where a tensor that tells a size is missing.
        """

        def shape(key: str) -> torch.Size:
            if key not in sd:
                raise CheckpointMismatchError(
                    f"This temporal U-Net has no tensor '{key}', so its sizes cannot be read. "
                    "Expected the keys of unet_video; the file may be cut short: fetch it again."
                )
            return sd[key].shape

        levels = range(_count(sd, "down_blocks.{}.resnets.0.norm1.weight"))
        channels = tuple(shape(f"down_blocks.{i}.resnets.0.conv1.weight")[0] for i in levels)
        attention = tuple(f"down_blocks.{i}.attentions.0.norm.weight" in sd for i in levels)
        mid = "mid_block.attentions.0.transformer_blocks.0"
        context_dim = shape(f"{mid}.attn2.to_k.weight")[1]

        def text_only(i: int) -> bool:
            if i == len(levels) - 1:
                return False
            key = f"down_blocks.{i}.attentions.0.transformer_blocks.0.attn1.to_k.weight"
            # Where text and features are equally wide, the shape cannot tell; all released
            # networks look at the text on every level but the innermost.
            return not attention[i] or shape(key)[1] == context_dim

        return cls(
            in_channels=shape("conv_in.weight")[1],
            out_channels=shape("conv_out.weight")[0],
            channels=channels,
            resnets=_count(sd, "down_blocks.0.resnets.{}.norm1.weight"),
            attention=attention,
            text_only=tuple(text_only(i) for i in levels),
            context_dim=context_dim,
            heads=shape(f"{mid}.attn_temporal.time_rel_pos_bias.relative_attention_bias.weight")[1],
            noise_levels=shape("class_embedding.weight")[0],
            time_dim=shape("time_embedding.linear_2.weight")[0],
            stage_kernel=shape("mid_temp_block.resblocks_3d_temporal.conv1.weight")[2],
            stage_time="mid_temp_block.resblocks_3d_temporal.time_emb_proj.weight" in sd,
        )


def _count(sd: Mapping[str, Tensor], pattern: str) -> int:
    n = 0
    while pattern.format(n) in sd:
        n += 1
    return n


@dataclass(frozen=True)
class Conditions:
    """What every block may look at: time, text, and the attention kernel to use."""

    time: Tensor
    """(b, time_dim), time step plus noise level, already through SiLU."""
    text: Tensor
    """(b, tokens, context_dim)."""
    attend: Attention
    buckets: Tensor
    """Temporal distances (t, t) of the frames, for the relative bias."""


class TextOrSelfAttention(nn.Module):
    """Attention over the text (``context_dim`` given) or over the tokens of the same frame."""

    def __init__(
        self,
        channels: int,
        heads: int,
        context_dim: int | None,
        *,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.over_text = context_dim is not None
        source = channels if context_dim is None else context_dim
        self.to_q = linear_layer(operations)(channels, channels, bias=False, **factory)
        self.to_k = linear_layer(operations)(source, channels, bias=False, **factory)
        self.to_v = linear_layer(operations)(source, channels, bias=False, **factory)
        self.to_out = nn.ModuleList([linear_layer(operations)(channels, channels, **factory)])

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
        operations: Any = nn,
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
        x = added(x, self.attn_temporal(self.norm_temporal(x), cond.buckets, cond.attend))
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
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        made = {"operations": operations, **factory}
        self.resblock_temporal = Resnet(
            channels, channels, eps=1e-6, temporal_kernels=(3, 3), **made
        )
        self.norm = operations.GroupNorm(32, channels, eps=1e-6, **factory)
        self.proj_in = linear_layer(operations)(channels, channels, **factory)
        self.transformer_blocks = nn.ModuleList(
            [TransformerBlock(channels, heads, context_dim, text_only, **made)]
        )
        self.proj_out = linear_layer(operations)(channels, channels, **factory)

    def forward(self, x: Tensor, cond: Conditions) -> Tensor:
        x = self.resblock_temporal(x)
        tokens = self.proj_in(to_tokens(per_frame(self.norm, x)))
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

    def __init__(self, sinusoid: int, dim: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        self.sinusoid = sinusoid
        self.linear_1 = linear_layer(operations)(sinusoid, dim, **factory)
        self.linear_2 = linear_layer(operations)(dim, dim, **factory)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.sinusoid // 2
        index = torch.arange(half, dtype=torch.float32, device=timestep.device)
        angle = timestep.float()[:, None] * torch.exp(index * (-math.log(10000.0) / half))
        wave = torch.cat((angle.cos(), angle.sin()), dim=-1)
        return self.linear_2(F.silu(self.linear_1(wave.to(dtype))))


class TemporalUNet(nn.Module):
    """v-prediction of a noisy latent video, given its low-resolution frames and a text."""

    def __init__(
        self, params: UNetParams, *, operations: Any = nn, dtype: Any = None, device: Any = None
    ) -> None:
        """``operations`` supplies the parametrised layers (``torch.nn`` or ComfyUI's)."""
        super().__init__()
        p, factory = params, {"dtype": dtype, "device": device}
        made = {"operations": operations, **factory}
        self.params = p
        self.dtype = dtype
        self.null_text_embedding: Tensor | None = None
        """(tokens, context_dim) of the empty text, where the checkpoint brought one."""

        resnet = {"eps": 1e-5, "time_channels": p.time_dim, **made}

        def transformer(level: int) -> dict:
            return {
                "heads": p.heads,
                "context_dim": p.context_dim,
                "text_only": p.text_only[level],
                **made,
            }

        def stage_module(width: int) -> StageModule:
            return StageModule(width, p.time_dim if p.stage_time else None, p.stage_kernel, **made)

        ch, last = p.channels, len(p.channels) - 1
        self.conv_in = operations.Conv2d(p.in_channels, ch[0], 3, padding=1, **factory)
        self.time_embedding = TimeEmbedding(ch[0], p.time_dim, **made)
        self.class_embedding = operations.Embedding(p.noise_levels, p.time_dim, **factory)
        # Unused, but part of the released files.
        self.temporal_rotary_emb = RotaryTable(ROTARY_DIMS, device)

        self.down_blocks, self.down_temp_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [ch[0]], ch[0]
        for i, out in enumerate(ch):
            widths = [(width if j == 0 else out, out) for j in range(p.resnets)]
            self.down_blocks.append(
                DownStage(
                    widths,
                    transformer(i) if p.attention[i] else None,
                    resnet,
                    downsample=i < last,
                    made=made,
                )
            )
            self.down_temp_blocks.append(stage_module(out))
            skips += [out] * (p.resnets + (i < last))
            width = out

        self.mid_block = MidStage(width, transformer(last), resnet)
        self.mid_temp_block = stage_module(width)

        self.up_blocks, self.up_temp_blocks = nn.ModuleList(), nn.ModuleList()
        for i, out in reversed(list(enumerate(ch))):
            widths = []
            for _ in range(p.resnets + 1):
                widths.append((width + skips.pop(), out))
                width = out
            self.up_blocks.append(
                UpStage(
                    widths,
                    transformer(i) if p.attention[i] else None,
                    resnet,
                    upsample=i > 0,
                    made=made,
                )
            )
            self.up_temp_blocks.append(stage_module(out))

        self.conv_norm_out = operations.GroupNorm(32, ch[0], eps=1e-5, **factory)
        self.conv_out = operations.Conv2d(ch[0], p.out_channels, 3, padding=1, **factory)

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        low_res: Tensor,
        context: Tensor,
        noise_level: Tensor,
        attend: Attention = scaled_dot_product,
    ) -> Tensor:
        """One evaluation.

        Args:
            latent: (b, 4, t, h, w), noisy, unit variance.
            timestep: (b,), 0..999.
            low_res: (b, 3, t, h, w) in [-1, 1], with the noise of ``noise_level`` added.
            context: (b, tokens, context_dim), the encoded text.
            noise_level: (b,) integers, the class label, 0..350 in training.
            attend: attention kernel.

        Returns:
            v, (b, 4, t, h, w).
        """
        together = latent.device.type != "cpu" or latent[0, 0].numel() < ALONE_FROM
        if len(latent) == 1 or together or torch.is_grad_enabled():
            return self._run(latent, timestep, low_res, context, noise_level, attend)
        # Clips of a batch do not see each other: one after the other takes half the memory.
        outs = [
            self._run(latent[i], timestep[i], low_res[i], context[i], noise_level[i], attend)
            for i in (slice(i, i + 1) for i in range(len(latent)))
        ]
        return torch.cat(outs)

    def _run(
        self,
        latent: Tensor,
        timestep: Tensor,
        low_res: Tensor,
        context: Tensor,
        noise_level: Tensor,
        attend: Attention,
    ) -> Tensor:
        """All clips of a batch together."""
        x = torch.cat((latent, low_res), dim=1)
        # One layout in which frames, clips and tokens are views of each other.
        x = x.contiguous(memory_format=torch.channels_last_3d)
        emb = self.time_embedding(timestep, x.dtype)
        emb = emb + self.class_embedding(noise_level.long()).to(emb.dtype)
        buckets = relative_buckets(latent.shape[2], latent.device)
        cond = Conditions(F.silu(emb), context, attend, buckets)

        x = per_frame(self.conv_in, x)
        held = [x]
        for block, temporal in zip(self.down_blocks, self.down_temp_blocks, strict=True):
            x, taken = block(x, cond)
            held += taken
            x = temporal(x, cond.time)
        x = self.mid_block(x, cond)
        x = self.mid_temp_block(x, cond.time)
        for block, temporal in zip(self.up_blocks, self.up_temp_blocks, strict=True):
            held.append(x)
            del x
            x = block(held, cond)
            x = temporal(x, cond.time)
        return per_frame(self.conv_out, activated(self.conv_norm_out, x))
