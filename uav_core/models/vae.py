"""The two VAEs: per-frame ``vae_3d`` and ``vae_video``, whose decoder sees time and the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from ..devices.layers import PLAIN, fitted
from ..errors import CheckpointMismatchError, InputError
from .attention import Attention, scaled_dot_product
from .layers import Downsample, Resnet, Upsample, activated, added, groups, normed, per_frame

LATENT_SCALE = 0.08333
"""Latents are multiplied by this after encoding and divided by it before decoding."""
UPSCALE = 4
EPS = 1e-6


@dataclass(frozen=True)
class VAEParams:
    """Every size of a VAE; the defaults are the released ``vae_video`` (113.8 M parameters)."""

    channels: tuple[int, ...] = (128, 256, 512)
    latent_channels: int = 4
    resnets: int = 2
    temporal: bool = True
    """The decoder has 3x3x3 convolutions and is conditioned on the low-resolution frames."""
    condition_channels: int = 128
    decoder_channels: tuple[int, ...] | None = None
    """The decoder's widths, full size first, where they are not the encoder's."""

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """The decoder's widths, full size last as it goes through them."""
        return (self.decoder_channels or self.channels)[::-1]

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor]) -> VAEParams:
        """Read every size off the shapes of canonical weights.

        Raises CheckpointMismatchError where a tensor that tells a size is missing.
        """

        def shape(key: str) -> torch.Size:
            if key not in sd:
                raise CheckpointMismatchError(
                    f"This VAE has no tensor '{key}', so its sizes cannot be read. Expected the "
                    "keys of vae_3d or vae_video; the file may be cut short: fetch it again."
                )
            return sd[key].shape

        def count(pattern: str) -> int:
            n = 0
            while pattern.format(n) in sd:
                n += 1
            return n

        levels = count("encoder.down_blocks.{}.resnets.0.conv1.weight")
        temporal = "decoder.condition_in.0.conv1.weight" in sd
        down, up = (
            tuple(shape(f"{place}.{i}.resnets.0.conv1.weight")[0] for i in range(levels))
            for place in ("encoder.down_blocks", "decoder.up_blocks")
        )
        return cls(
            channels=down,
            decoder_channels=None if up[::-1] == down else up[::-1],
            latent_channels=shape("post_quant_conv.weight")[0],
            resnets=count("encoder.down_blocks.0.resnets.{}.conv1.weight"),
            temporal=temporal,
            condition_channels=(
                shape("decoder.condition_in.0.conv1.weight")[0] if temporal else 128
            ),
        )


class SpatialAttention(nn.Module):
    """One head over the positions of a frame, under the old diffusers names."""

    def __init__(self, channels: int, *, operations: Any = PLAIN, **factory: Any) -> None:
        super().__init__()
        self.group_norm = operations.GroupNorm(groups(channels), channels, eps=EPS, **factory)
        self.query = operations.Linear(channels, channels, **factory)
        self.key = operations.Linear(channels, channels, **factory)
        self.value = operations.Linear(channels, channels, **factory)
        self.proj_attn = operations.Linear(channels, channels, **factory)

    def forward(self, x: Tensor, attend: Attention) -> Tensor:
        b, _, t, h, w = x.shape
        tokens = rearrange(
            per_frame(partial(normed, self.group_norm), x), "b c t h w -> (b t) (h w) c"
        )
        out = attend(self.query(tokens), self.key(tokens), self.value(tokens), 1)
        out = self.proj_attn(out)
        return added(rearrange(out, "(b t) (h w) c -> b c t h w", b=b, t=t, h=h, w=w), x)


class MidBlock(nn.Module):
    """Resnet, attention over the frame, resnet at the lowest resolution."""

    def __init__(self, channels: int, refine_3d: bool, made: dict, factory: dict) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([SpatialAttention(channels, **made)])
        self.resnets = nn.ModuleList(
            [Resnet(channels, channels, eps=EPS, refine_3d=refine_3d, **made) for _ in range(2)]
        )

    def forward(self, x: Tensor, attend: Attention) -> Tensor:
        x = self.resnets[0](x)
        x = self.attentions[0](x, attend)
        return self.resnets[1](x)


class Level(nn.Module):
    """Resnets of one resolution, then the change of resolution."""

    def __init__(
        self, cin: int, cout: int, count: int, change: str | None, refine_3d: bool, made: dict
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            [
                Resnet(cin if j == 0 else cout, cout, eps=EPS, refine_3d=refine_3d, **made)
                for j in range(count)
            ]
        )
        self.downsamplers = (
            nn.ModuleList([Downsample(cout, padding=0, **made)]) if change == "down" else None
        )
        self.upsamplers = nn.ModuleList([Upsample(cout, **made)]) if change == "up" else None

    def layers(self) -> Iterator[Any]:
        """All of them in order, to be run by someone who keeps no other tensor alive."""
        yield from self.resnets
        for change in (self.downsamplers, self.upsamplers):
            if change is not None:
                yield change[0]


class Encoder(nn.Module):
    """Pixels to the moments of the latent."""

    def __init__(self, p: VAEParams, made: dict, factory: dict) -> None:
        super().__init__()
        operations, ch = made["operations"], p.channels
        self.conv_in = operations.Conv2d(3, ch[0], 3, padding=1, **factory)
        self.down_blocks = nn.ModuleList(
            [
                Level(
                    ch[max(i - 1, 0)],
                    ch[i],
                    p.resnets,
                    "down" if i < len(ch) - 1 else None,
                    False,
                    made,
                )
                for i in range(len(ch))
            ]
        )
        self.mid_block = MidBlock(ch[-1], False, made, factory)
        self.conv_norm_out = operations.GroupNorm(groups(ch[-1]), ch[-1], eps=EPS, **factory)
        self.conv_out = operations.Conv2d(ch[-1], 2 * p.latent_channels, 3, padding=1, **factory)

    def forward(self, x: Tensor, attend: Attention) -> Tensor:
        x = per_frame(self.conv_in, x)
        for block in self.down_blocks:
            for layer in cast(Level, block).layers():
                x = layer(x)
        x = self.mid_block(x, attend)
        return per_frame(self.conv_out, activated(self.conv_norm_out, x))


class ConditionFuse(nn.Module):
    """Scale and shift of the decoder's features, computed from features and condition."""

    def __init__(self, condition: int, channels: int, made: dict, factory: dict) -> None:
        super().__init__()
        operations = made["operations"]
        self.shared = nn.ModuleList(
            [
                Resnet(condition + channels, channels, eps=EPS, **made),
                Resnet(channels, channels, eps=EPS, **made),
            ]
        )
        self.scale = operations.Conv2d(channels, channels, 3, padding=1, **factory)
        self.shift = operations.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, x: Tensor, condition: Tensor, w: float) -> Tensor:
        h = torch.cat((condition, x), dim=1)
        for resnet in self.shared:
            h = resnet(h)
        return x + w * (x * per_frame(self.scale, h) + per_frame(self.shift, h))


class Decoder(nn.Module):
    """Latent, and for ``vae_video`` the low-resolution frames, to pixels."""

    def __init__(self, p: VAEParams, made: dict, factory: dict) -> None:
        super().__init__()
        operations, ch = made["operations"], p.decoder_widths
        self.conv_in = operations.Conv2d(p.latent_channels, ch[0], 3, padding=1, **factory)
        if p.temporal:
            cond = p.condition_channels
            self.condition_in = nn.ModuleList(
                [
                    Resnet(3, cond, eps=EPS, groups_in=3, refine_3d=True, **made),
                    Resnet(cond, cond, eps=EPS, refine_3d=True, **made),
                ]
            )
            self.condition_fuse = ConditionFuse(cond, ch[0], made, factory)
        self.mid_block = MidBlock(ch[0], p.temporal, made, factory)
        self.up_blocks = nn.ModuleList(
            [
                Level(
                    ch[max(i - 1, 0)],
                    ch[i],
                    p.resnets + 1,
                    "up" if i < len(ch) - 1 else None,
                    p.temporal,
                    made,
                )
                for i in range(len(ch))
            ]
        )
        self.conv_norm_out = operations.GroupNorm(groups(ch[-1]), ch[-1], eps=EPS, **factory)
        self.conv_out = operations.Conv2d(ch[-1], 3, 3, padding=1, **factory)

    def forward(self, z: Tensor, low_res: Tensor | None, w: float, attend: Attention) -> Tensor:
        x = per_frame(self.conv_in, z)
        if low_res is not None and w != 0:
            condition = low_res
            for resnet in self.condition_in:
                condition = resnet(condition)
            x = self.condition_fuse(x, condition, w)
            del condition
        x = self.mid_block(x, attend)
        for block in self.up_blocks:
            for layer in cast(Level, block).layers():
                x = layer(x)
        return per_frame(self.conv_out, activated(self.conv_norm_out, x))


class TemporalVAE(nn.Module):
    """Encoder and decoder; all frames given to one call share their GroupNorm statistics.

    Computes in the precision of its weights, fp32 or bf16 (fp16 overflows), and gives fp32.
    """

    def __init__(
        self,
        params: VAEParams,
        *,
        operations: Any = nn,
        dtype: Any = None,
        device: Any = None,
        attend: Attention = scaled_dot_product,
    ) -> None:
        super().__init__()
        operations = fitted(operations)
        p, factory = params, {"dtype": dtype, "device": device}
        made = {"operations": operations, **factory}
        self.params = p
        self.attend = attend
        self.precision: torch.dtype | None = None
        """What to compute in where that is not the precision that the weights are stored in."""
        self.encoder = Encoder(p, made, factory)
        self.decoder = Decoder(p, made, factory)
        two, one = 2 * p.latent_channels, p.latent_channels
        self.quant_conv = operations.Conv2d(two, two, 1, **factory)
        self.post_quant_conv = operations.Conv2d(one, one, 1, **factory)

    def encode(self, pixels: Tensor) -> Tensor:
        """Mean of the latent distribution.

        Args:
            pixels: (b, 3, t, 4h, 4w) in [-1, 1].

        Returns:
            (b, latent_channels, t, h, w), not multiplied by the latent scale.
        """
        moments = per_frame(self.quant_conv, self.encoder(self._given(pixels), self.attend))
        return moments.chunk(2, dim=1)[0].float()

    def decode(self, z: Tensor, low_res: Tensor | None = None, w: float = 1.0) -> Tensor:
        """Decode one group of frames.

        Args:
            z: (b, latent_channels, t, h, w), already divided by the latent scale.
            low_res: (b, 3, t, h, w) in [-1, 1]; needed by ``vae_video`` unless ``w`` is 0,
                ignored by ``vae_3d``.
            w: weight of the low-resolution guidance, 0 (none) to 1 (as trained).

        Returns:
            (b, 3, t, 4h, 4w), about [-1, 1], not clamped.

        Raises:
            InputError: ``low_res`` is missing or does not match ``z``.
        """
        if not self.params.temporal:
            low_res = None
        elif w != 0:
            want = (z.shape[0], 3, *z.shape[2:])
            if low_res is None or tuple(low_res.shape) != want:
                got = "none" if low_res is None else tuple(low_res.shape)
                raise InputError(
                    f"This VAE decodes with the low-resolution frames, expected as {want}; "
                    f"got {got}. Give the frames the latent was made from, or set w to 0."
                )
        if low_res is not None:
            low_res = self._given(low_res)
        z = per_frame(self.post_quant_conv, self._given(z))
        return self.decoder(z, low_res, w, self.attend).float()

    def _given(self, x: Tensor) -> Tensor:
        """``x`` in the precision of the weights, with the channels last."""
        x = x.to(self.precision or self.post_quant_conv.weight.dtype)
        return x.contiguous(memory_format=torch.channels_last_3d)
