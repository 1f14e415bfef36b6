"""The temporal U-Net (paper, figure 2): Stable Diffusion's x4 upscaler with layers along time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..devices import ways
from ..devices.layers import Layers
from .attention import Attention, scaled_dot_product
from .blocks import Build, Conditions, DownStage, MidStage, TimeEmbedding, Transformer, UpStage
from .layers import Downsample, Resnet, Sizes, Upsample, activated, per_frame
from .temporal import ROTARY_DIMS, Moments, RotaryTable, StageModule


@dataclass(frozen=True)
class UNetParams:
    """Every size of the network; the defaults are the released model (691.0 M parameters)."""

    in_channels: int = 7
    out_channels: int = 4
    channels: tuple[int, ...] = (256, 512, 512, 1024)
    resnets: int = 2
    attention: tuple[bool, ...] = (False, True, True, True)
    text_only: tuple[bool, ...] = (True, True, True, False)
    """Whether each level's first attention is over the text; otherwise it is over the frame."""
    context_dim: int = 1024
    heads: int = 8
    noise_levels: int = 1000
    time_dim: int = 1024
    stage_kernel: int = 5
    stage_time: bool = True
    trailing: bool = False
    """Whether the weights are made for time steps with trailing spacing (``schedule.timesteps``).

    A file says so by a tensor that no layer uses, ``trailing_timesteps`` (1,), as it would by
    ``timestep_spacing`` in the scheduler's settings of diffusers.
    """

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor]) -> UNetParams:
        """Read every size off the shapes of canonical weights.

        Raises CheckpointMismatchError if a tensor that tells a size is missing.
        """
        sizes = Sizes(sd, "temporal U-Net", "unet_video")
        shape = sizes.shape
        levels = range(sizes.count("down_blocks.{}.resnets.0.norm1.weight"))
        channels = tuple(shape(f"down_blocks.{i}.resnets.0.conv1.weight")[0] for i in levels)
        attention = tuple(f"down_blocks.{i}.attentions.0.norm.weight" in sd for i in levels)
        mid = "mid_block.attentions.0.transformer_blocks.0"
        context_dim = shape(f"{mid}.attn2.to_k.weight")[1]

        def text_only(i: int) -> bool:
            if i == len(levels) - 1:
                return False
            key = f"down_blocks.{i}.attentions.0.transformer_blocks.0.attn1.to_k.weight"
            # The shape cannot tell if text and features are equally wide. All released networks
            # attend to the text on every level but the innermost.
            return not attention[i] or shape(key)[1] == context_dim

        return cls(
            in_channels=shape("conv_in.weight")[1],
            out_channels=shape("conv_out.weight")[0],
            channels=channels,
            resnets=sizes.count("down_blocks.0.resnets.{}.norm1.weight"),
            attention=attention,
            text_only=tuple(text_only(i) for i in levels),
            context_dim=context_dim,
            heads=shape(f"{mid}.attn_temporal.time_rel_pos_bias.relative_attention_bias.weight")[1],
            noise_levels=shape("class_embedding.weight")[0],
            time_dim=shape("time_embedding.linear_2.weight")[0],
            stage_kernel=shape("mid_temp_block.resblocks_3d_temporal.conv1.weight")[2],
            stage_time="mid_temp_block.resblocks_3d_temporal.time_emb_proj.weight" in sd,
            trailing="trailing_timesteps" in sd,
        )


class TemporalUNet(nn.Module):
    """v-prediction of a noisy latent video, given its low-resolution frames and a text."""

    def __init__(
        self, params: UNetParams, *, operations: Any = nn, dtype: Any = None, device: Any = None
    ) -> None:
        """``operations`` supplies the parametrised layers (``torch.nn`` or ComfyUI's)."""
        super().__init__()
        make = Layers(operations, dtype, device)
        p = params
        self.params = p
        self.dtype = dtype
        self.null_text_embedding: Tensor | None = None
        """(tokens, context_dim) of the empty text, if the checkpoint has one."""

        resnet = partial(Resnet, make, eps=1e-5, time_channels=p.time_dim)
        time_channels = p.time_dim if p.stage_time else None
        transformers = [
            partial(Transformer, make, heads=p.heads, context_dim=p.context_dim, text_only=alone)
            for alone in p.text_only
        ]

        def attention(i: int) -> Build | None:
            return transformers[i] if p.attention[i] else None

        def stage_module(width: int) -> StageModule:
            return StageModule(make, width, time_channels, p.stage_kernel)

        ch, last = p.channels, len(p.channels) - 1
        self.conv_in = make.Conv2d(p.in_channels, ch[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(make, ch[0], p.time_dim)
        self.class_embedding = make.Embedding(p.noise_levels, p.time_dim)
        # Unused, but part of the released files.
        self.temporal_rotary_emb = RotaryTable(ROTARY_DIMS, device)
        if p.trailing:
            self.register_buffer("trailing_timesteps", torch.ones(1, device=device))

        self.down_blocks, self.down_temp_blocks = nn.ModuleList(), nn.ModuleList()
        skips, width = [ch[0]], ch[0]
        for i, out in enumerate(ch):
            widths = [(width if j == 0 else out, out) for j in range(p.resnets)]
            down = partial(Downsample, make, out, padding=1) if i < last else None
            self.down_blocks.append(DownStage(widths, resnet, attention(i), downsample=down))
            self.down_temp_blocks.append(stage_module(out))
            skips += [out] * (p.resnets + (i < last))
            width = out

        self.mid_block = MidStage(width, resnet, transformers[last])
        self.mid_temp_block = stage_module(width)

        self.up_blocks, self.up_temp_blocks = nn.ModuleList(), nn.ModuleList()
        for i, out in reversed(list(enumerate(ch))):
            widths = []
            for _ in range(p.resnets + 1):
                widths.append((width + skips.pop(), out))
                width = out
            up = partial(Upsample, make, out) if i > 0 else None
            self.up_blocks.append(UpStage(widths, resnet, attention(i), upsample=up))
            self.up_temp_blocks.append(stage_module(out))

        self.conv_norm_out = make.GroupNorm(32, ch[0], eps=1e-5)
        self.conv_out = make.Conv2d(ch[0], p.out_channels, 3, padding=1)

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        low_res: Tensor,
        context: Tensor,
        noise_level: Tensor,
        attend: Attention = scaled_dot_product,
    ) -> Tensor:
        """One evaluation of the network.

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
        apart = len(latent) > 1 and ways.of(latent.device).runs_clips_apart(latent)
        if not apart or torch.is_grad_enabled():
            return self._run(latent, timestep, low_res, context, noise_level, attend)
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
        """Run all clips of a batch together."""
        x = torch.cat((latent, low_res), dim=1)
        # One layout in which frames, clips and tokens are views of each other.
        x = x.contiguous(memory_format=torch.channels_last_3d)
        emb = self.time_embedding(timestep, x.dtype)
        emb = emb + self.class_embedding(noise_level.long()).to(emb.dtype)
        cond = Conditions(F.silu(emb), context, attend, Moments(latent.shape[2], latent.device))

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
