"""Building blocks that the U-Net and the VAEs share.

Activations are ``b c t h w``. Two-dimensional layers see every frame on its own; a GroupNorm that
sees the five-dimensional tensor takes its statistics over time as well. Nothing here copies when
the tensor is laid out channels-last: frames, tokens and clips are then views of one memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..devices import winograd
from ..devices.linear import linear, linear_layer
from ..devices.stripes import LendsWeights, activation, blank, convolve, doubled, is_striped

GROUPS = 32
SMALL_FRAME = 64
"""Positions of a frame up to which a CPU convolves faster with the channels first: there the work
is in the weights, which are stored that way..."""
TINY_FRAME = 16
"""... and up to which it is fastest as one matrix product, which reads every weight once."""


def per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a 2-D ``layer`` to every frame of ``x`` (b c t h w)."""
    out = layer(x.transpose(1, 2).flatten(0, 1))
    return out.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def convolve_frames(conv: nn.Module, frames: Tensor) -> Tensor:
    """A 3x3 convolution of frames (n c h w) in the way that is fastest."""
    positions = frames.shape[-2] * frames.shape[-1]
    if isinstance(conv, LendsWeights):
        if winograd.serves(frames, conv.out_channels):
            return conv.lend(lambda *weights: winograd.convolve_frames(frames, *weights), frames)
        if frames.device.type == "cpu" and positions <= TINY_FRAME:
            return conv.lend(lambda *weights: multiply_out(frames, *weights), frames)
    if frames.device.type != "cpu" or positions > SMALL_FRAME:
        return conv(frames)
    return conv(frames.contiguous()).contiguous(memory_format=torch.channels_last)


def multiply_out(frames: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution as the product of the weights with every position's surroundings."""
    around = F.unfold(frames, weight.shape[-2:], padding=1).transpose(1, 2)
    n, positions = around.shape[:2]
    # As one matrix: a batch of them would have the weights copied for each.
    out = linear(around.reshape(n * positions, -1), weight.flatten(1), bias)
    return out.view(n, *frames.shape[-2:], -1).permute(0, 3, 1, 2)


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y, written into ``x`` unless gradients are asked for."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


def activated(norm: nn.Module, x: Tensor) -> Tensor:
    """SiLU of the normalised ``x``."""
    return F.silu(norm(x), inplace=not torch.is_grad_enabled())


class AlongTime(nn.Module):
    """Mixed into a Conv3d of kernel (k, 1, 1): runs it as a 2-D convolution, twice as fast.

    The image of that convolution has time as its height and all positions of a frame as its
    width; with the channels last it is a view. Weights still come through the layer's own class,
    which may cast, stream or patch them.
    """

    kernel_size: tuple[int, ...]

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None, **_: Any) -> Tensor:
        h, w = input.shape[-2:]
        out = F.conv2d(input.flatten(-2), weight[..., 0], bias, padding=(weight.shape[2] // 2, 0))
        return out.unflatten(-1, (h, w))


@functools.cache
def conv_along_time(operations: Any) -> type[nn.Module]:
    """The Conv3d of ``operations`` for kernels (k, 1, 1)."""
    return type("ConvAlongTime", (AlongTime, operations.Conv3d), {})


@functools.cache
def lending(layer: type[nn.Module]) -> Any:
    """A convolution class of ``operations``, able to run in stripes."""
    return type(layer.__name__, (LendsWeights, layer), {})


class Resnet(nn.Module):
    """norm, SiLU, conv, (+ time), norm, SiLU, conv, + shortcut of the input.

    ``temporal_kernels`` turns both convolutions into ``(k, 1, 1)`` ones along time; otherwise they
    are 3x3 per frame. ``refine_3d`` adds the VAE's residual 3x3x3 convolution at the end. Both
    norms take their statistics over all the frames given together.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        eps: float,
        time_channels: int | None = None,
        temporal_kernels: tuple[int, int] | None = None,
        refine_3d: bool = False,
        groups_in: int = GROUPS,
        operations: Any = nn,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.is_temporal = temporal_kernels is not None

        def conv(cin: int, kernel_index: int) -> nn.Module:
            if temporal_kernels is None:
                return lending(operations.Conv2d)(cin, out_channels, 3, padding=1, **factory)
            k = temporal_kernels[kernel_index]
            return conv_along_time(operations)(
                cin, out_channels, (k, 1, 1), padding=(k // 2, 0, 0), **factory
            )

        self.norm1 = operations.GroupNorm(groups_in, in_channels, eps=eps, **factory)
        self.conv1: Any = conv(in_channels, 0)
        if time_channels is not None:
            self.time_emb_proj = linear_layer(operations)(time_channels, out_channels, **factory)
        else:
            self.time_emb_proj = None
        self.norm2 = operations.GroupNorm(GROUPS, out_channels, eps=eps, **factory)
        self.conv2: Any = conv(out_channels, 1)
        if in_channels != out_channels:
            self.conv_shortcut = operations.Conv2d(in_channels, out_channels, 1, **factory)
        else:
            self.conv_shortcut = None
        if refine_3d:
            self.norm_3d = operations.GroupNorm(GROUPS, out_channels, eps=eps, **factory)
            conv_3d = lending(operations.Conv3d)
            self.conv_3d = conv_3d(out_channels, out_channels, 3, padding=1, **factory)
        else:
            self.conv_3d = None

    def _convolve(self, conv: nn.Module, x: Tensor) -> Tensor:
        return conv(x) if self.is_temporal else per_frame(lambda f: convolve_frames(conv, f), x)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """``x`` (b c t h w); ``time`` (b, time_channels), already through its SiLU."""
        if self.time_emb_proj is not None and time is None:
            raise TypeError("this resnet has a time projection but no embedding was given")
        if not self.is_temporal and is_striped(x, self.conv1.out_channels):
            return self._in_stripes(x, time)
        h = self._convolve(self.conv1, activated(self.norm1, x))
        if self.time_emb_proj is not None:
            h = added(h, self.time_emb_proj(time)[:, :, None, None, None])
        h = activated(self.norm2, h)
        h = self._convolve(self.conv2, h)
        if self.conv_shortcut is not None:
            x = per_frame(self.conv_shortcut, x)
        x = added(h, x)
        if self.conv_3d is not None:
            x = added(self.conv_3d(activated(self.norm_3d, x)), x)
        return x

    def _in_stripes(self, x: Tensor, time: Tensor | None) -> Tensor:
        """The same with one tensor of the result's size beside the input."""
        b, cin, t, height, width = x.shape
        cout = self.conv1.out_channels
        out = blank(x, b, cout, t, height, width)

        def shortcut(first: int, stop: int) -> Tensor:
            rows = x[:, :, :, first:stop]
            return rows if self.conv_shortcut is None else per_frame(self.conv_shortcut, rows)

        convolve(self.conv1, activation(self.norm1, x), out, cin)
        if self.time_emb_proj is not None:
            out += self.time_emb_proj(time)[:, :, None, None, None]
        convolve(self.conv2, activation(self.norm2, out), out, cout, rest=shortcut)
        if self.conv_3d is not None:
            convolve(self.conv_3d, activation(self.norm_3d, out), out, cout, onto=True)
        return out


class Downsample(nn.Module):
    """3x3 convolution of stride 2; ``padding`` 0 pads right and bottom only, as in VAEs."""

    def __init__(self, channels: int, *, padding: int, operations: Any = nn, **factory: Any):
        super().__init__()
        self.padding = padding
        self.conv = operations.Conv2d(channels, channels, 3, stride=2, padding=padding, **factory)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding == 0:
            x = F.pad(x, (0, 1, 0, 1))
        return per_frame(self.conv, x)


class Upsample(nn.Module):
    """Nearest-neighbour resize, then a 3x3 convolution."""

    def __init__(self, channels: int, *, operations: Any = nn, **factory: Any) -> None:
        super().__init__()
        conv = lending(operations.Conv2d)
        self.conv = conv(channels, channels, 3, padding=1, **factory)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """``size`` (h, w) of the result; twice the input where it is left out."""
        b, c, t, h, w = x.shape
        if (size is None or tuple(size) == (2 * h, 2 * w)) and is_striped(x, c, enlarged=4):
            out = blank(x, b, c, t, 2 * h, 2 * w)
            return convolve(self.conv, doubled(x), out, c)
        if size is None:
            size = (x.shape[-2] * 2, x.shape[-1] * 2)
        return per_frame(
            lambda frames: convolve_frames(self.conv, F.interpolate(frames, size=size)), x
        )


def to_tokens(x: Tensor) -> Tensor:
    """b c t h w -> b t (h w) c."""
    return rearrange(x, "b c t h w -> b t (h w) c")


def from_tokens(x: Tensor, h: int, w: int) -> Tensor:
    """b t (h w) c -> b c t h w."""
    return rearrange(x, "b t (h w) c -> b c t h w", h=h, w=w)
