"""The two VAEs: per-frame ``vae_3d`` and ``vae_video``, whose decoder sees time and the input."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from ..devices.layers import Layers
from ..devices.layout import added
from ..errors import InputError
from .attention import Attention, scaled_dot_product
from .layers import Downsample, Resnet, Sizes, Upsample, activated, groups, normed, per_frame

log = logging.getLogger(__name__)

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
    """The decoder's widths, full size first; None if they equal the encoder's."""

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """The decoder's widths in the order it uses them, full size last."""
        return (self.decoder_channels or self.channels)[::-1]

    @classmethod
    def from_state_dict(cls, sd: Mapping[str, Tensor]) -> VAEParams:
        """Read every size off the shapes of canonical weights.

        Raises CheckpointMismatchError if a tensor that tells a size is missing.
        """
        sizes = Sizes(sd, "VAE", "vae_3d or vae_video")
        shape = sizes.shape
        levels = range(sizes.count("encoder.down_blocks.{}.resnets.0.conv1.weight"))
        down, up = (
            tuple(shape(f"{place}.{i}.resnets.0.conv1.weight")[0] for i in levels)
            for place in ("encoder.down_blocks", "decoder.up_blocks")
        )
        temporal = "decoder.condition_in.0.conv1.weight" in sd
        condition = shape("decoder.condition_in.0.conv1.weight")[0] if temporal else 128
        return cls(
            channels=down,
            decoder_channels=None if up[::-1] == down else up[::-1],
            latent_channels=shape("post_quant_conv.weight")[0],
            resnets=sizes.count("encoder.down_blocks.0.resnets.{}.conv1.weight"),
            temporal=temporal,
            condition_channels=condition,
        )


class SpatialAttention(nn.Module):
    """One head over the positions of a frame, under the old diffusers names."""

    def __init__(self, make: Layers, channels: int) -> None:
        super().__init__()
        self.group_norm = make.GroupNorm(groups(channels), channels, eps=EPS)
        self.query = make.Linear(channels, channels)
        self.key = make.Linear(channels, channels)
        self.value = make.Linear(channels, channels)
        self.proj_attn = make.Linear(channels, channels)

    def forward(self, x: Tensor, attend: Attention) -> Tensor:
        b, _, t, h, w = x.shape
        tokens = rearrange(
            per_frame(partial(normed, self.group_norm), x), "b c t h w -> (b t) (h w) c"
        )
        out = attend(self.query(tokens), self.key(tokens), self.value(tokens), 1)
        out = self.proj_attn(out)
        return added(rearrange(out, "(b t) (h w) c -> b c t h w", b=b, t=t, h=h, w=w), x)


def resnets(make: Layers, widths: Sequence[int], refine_3d: bool = False) -> nn.ModuleList:
    """One ``Resnet`` from each width to the next."""
    pairs = itertools.pairwise(widths)
    return nn.ModuleList([Resnet(make, *pair, eps=EPS, refine_3d=refine_3d) for pair in pairs])


class MidBlock(nn.Module):
    """Resnet, attention over the frame, resnet at the lowest resolution."""

    def __init__(self, make: Layers, channels: int, refine_3d: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([SpatialAttention(make, channels)])
        self.resnets = resnets(make, [channels] * 3, refine_3d)

    def forward(self, x: Tensor, attend: Attention) -> Tensor:
        x = self.resnets[0](x)
        x = self.attentions[0](x, attend)
        return self.resnets[1](x)


class Level(nn.Module):
    """Resnets of one resolution, then the change of resolution."""

    def __init__(
        self, make: Layers, widths: Sequence[int], change: str | None, refine_3d: bool
    ) -> None:
        super().__init__()
        self.resnets, out = resnets(make, widths, refine_3d), widths[-1]
        down, up = change == "down", change == "up"
        self.downsamplers = nn.ModuleList([Downsample(make, out, padding=0)]) if down else None
        self.upsamplers = nn.ModuleList([Upsample(make, out)]) if up else None


def levels(
    make: Layers, widths: Sequence[int], count: int, change: str, refine_3d: bool = False
) -> nn.ModuleList:
    """Levels of ``count`` resnets each; all but the last change the resolution."""
    made, before, last = nn.ModuleList(), widths[0], len(widths) - 1
    for i, width in enumerate(widths):
        row = before, *[width] * count
        made.append(Level(make, row, change if i < last else None, refine_3d))
        before = width
    return made


def layers_of(levels: nn.ModuleList) -> Iterator[Any]:
    """All layers of ``levels`` in order, so that a caller need not keep other tensors alive."""
    for level in levels:
        yield from cast(Any, level).resnets
        for change in (level.downsamplers, level.upsamplers):
            if change is not None:
                yield cast(Any, change)[0]


class Encoder(nn.Module):
    """From pixels to the moments of the latent."""

    def __init__(self, make: Layers, p: VAEParams) -> None:
        super().__init__()
        ch = p.channels
        self.conv_in = make.Conv2d(3, ch[0], 3, padding=1)
        self.down_blocks = levels(make, ch, p.resnets, "down")
        self.mid_block = MidBlock(make, ch[-1], False)
        self.conv_norm_out = make.GroupNorm(groups(ch[-1]), ch[-1], eps=EPS)
        self.conv_out = make.Conv2d(ch[-1], 2 * p.latent_channels, 3, padding=1)

    def forward(self, x: Tensor, attend: Attention) -> Tensor:
        x = per_frame(self.conv_in, x)
        for layer in layers_of(self.down_blocks):
            x = layer(x)
        x = self.mid_block(x, attend)
        return per_frame(self.conv_out, activated(self.conv_norm_out, x))


class ConditionFuse(nn.Module):
    """Scale and shift of the decoder's features, computed from features and condition."""

    def __init__(self, make: Layers, condition: int, channels: int) -> None:
        super().__init__()
        self.shared = resnets(make, (condition + channels, channels, channels))
        self.scale = make.Conv2d(channels, channels, 3, padding=1)
        self.shift = make.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, condition: Tensor, w: float) -> Tensor:
        h = torch.cat((condition, x), dim=1)
        for resnet in self.shared:
            h = resnet(h)
        change = torch.addcmul(per_frame(self.shift, h), x, per_frame(self.scale, h))
        return torch.add(x, change, alpha=w)


class Decoder(nn.Module):
    """From the latent, and for ``vae_video`` the low-resolution frames, to pixels."""

    def __init__(self, make: Layers, p: VAEParams) -> None:
        super().__init__()
        ch, cond = p.decoder_widths, p.condition_channels
        self.conv_in = make.Conv2d(p.latent_channels, ch[0], 3, padding=1)
        if p.temporal:
            first = Resnet(make, 3, cond, eps=EPS, groups_in=3, refine_3d=True)
            self.condition_in = nn.ModuleList([first, *resnets(make, (cond, cond), True)])
            self.condition_fuse = ConditionFuse(make, cond, ch[0])
        self.mid_block = MidBlock(make, ch[0], p.temporal)
        self.up_blocks = levels(make, ch, p.resnets + 1, "up", p.temporal)
        self.conv_norm_out = make.GroupNorm(groups(ch[-1]), ch[-1], eps=EPS)
        self.conv_out = make.Conv2d(ch[-1], 3, 3, padding=1)

    def forward(self, z: Tensor, low_res: Tensor | None, w: float, attend: Attention) -> Tensor:
        x = per_frame(self.conv_in, z)
        if low_res is not None and w != 0:
            condition = low_res
            for resnet in self.condition_in:
                condition = resnet(condition)
            x = self.condition_fuse(x, condition, w)
            del condition
        x = self.mid_block(x, attend)
        for layer in layers_of(self.up_blocks):
            x = layer(x)
        return per_frame(self.conv_out, activated(self.conv_norm_out, x))


class TemporalVAE(nn.Module):
    """Encoder and decoder; all frames given to one call share their GroupNorm statistics.

    Computes in the precision of its weights and returns fp32. For fp16 see ``fitted_to_half``.
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
        make, p = Layers(operations, dtype, device), params
        self.params = p
        self.attend = attend
        self.precision: torch.dtype | None = None
        """The dtype to compute in; None for that of the stored weights."""
        self.wider: torch.dtype | None = None
        """A dtype for what overflows in fp16, if the layers cast their weights; else None."""
        self._has_overflowed = False
        self.encoder = Encoder(make, p)
        self.decoder = Decoder(make, p)
        two, one = 2 * p.latent_channels, p.latent_channels
        self.quant_conv = make.Conv2d(two, two, 1)
        self.post_quant_conv = make.Conv2d(one, one, 1)

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
                    f"This VAE needs the low-resolution frames as {want}, but got {got}. Pass the "
                    "frames that belong to the latent, or set w to 0."
                )
        if low_res is not None:
            low_res = self._given(low_res)
        z = per_frame(self.post_quant_conv, self._given(z))
        return self.decoder(z, low_res, w, self.attend).float()

    @contextmanager
    def in_wider(self) -> Iterator[None]:
        """Context that computes in ``wider``, for what overflowed; says so the first time."""
        if not self._has_overflowed:
            log.warning(
                "The VAE overflowed in fp16. Such frames are computed again in %s, which takes "
                "longer. Choose this precision in 'Load Temporal VAE' to save that time.",
                str(self.wider).removeprefix("torch."),
            )
        self._has_overflowed = True
        before, self.precision = self.precision, self.wider
        try:
            yield
        finally:
            self.precision = before

    def _given(self, x: Tensor) -> Tensor:
        """``x`` in the precision of the weights, with the channels last."""
        x = x.to(self.precision or self.post_quant_conv.weight.dtype)
        return x.contiguous(memory_format=torch.channels_last_3d)
