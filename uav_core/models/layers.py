"""Building blocks that the U-Net and the VAEs share.

Activations are ``b c t h w``. Two-dimensional layers process every frame on its own; a GroupNorm
that gets the five-dimensional tensor takes its statistics over time as well. With channels-last
tensors nothing here copies: frames, tokens and clips are then views of one memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from math import gcd
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..devices import stripes, ways
from ..devices.layers import Layers
from ..devices.layout import per_frame
from ..errors import CheckpointMismatchError

MOST_GROUPS = 32


def groups(channels: int) -> int:
    """Groups of a norm: the largest divisor of ``channels`` and of the released networks' 32."""
    return gcd(channels, MOST_GROUPS)


class Sizes:
    """The sizes of a network, read off the shapes of canonical weights."""

    def __init__(self, weights: Mapping[str, Tensor], network: str, keys: str) -> None:
        """``network`` names the network in messages, ``keys`` the files that have its keys."""
        self.weights, self.network, self.keys = weights, network, keys

    def shape(self, key: str) -> torch.Size:
        """The shape of the tensor ``key``. Raises CheckpointMismatchError if it is missing."""
        if key not in self.weights:
            raise CheckpointMismatchError(
                f"This {self.network} has no tensor '{key}', so its sizes cannot be read. "
                f"Expected the keys of {self.keys}; the file may be incomplete. Download it again."
            )
        return self.weights[key].shape

    def count(self, pattern: str) -> int:
        """The number of keys that match ``pattern``, numbered from 0."""
        return next(n for n in itertools.count() if pattern.format(n) not in self.weights)


def normed(norm: nn.Module, x: Tensor) -> Tensor:
    """The normalised ``x``."""
    return ways.of(x.device).normed(norm, x)


def activated(norm: nn.Module, x: Tensor) -> Tensor:
    """SiLU of the normalised ``x``."""
    return ways.of(x.device).activated(norm, x)


class Resnet(nn.Module):
    """norm, SiLU, conv, (+ time), norm, SiLU, conv, + shortcut of the input.

    ``temporal_kernels`` turns both convolutions into ``(k, 1, 1)`` ones along time; otherwise they
    are 3x3 per frame. ``refine_3d`` adds the VAE's residual 3x3x3 convolution at the end. Both
    norms take their statistics over all the frames given together.
    """

    def __init__(
        self,
        make: Layers,
        in_channels: int,
        out_channels: int,
        *,
        eps: float,
        time_channels: int | None = None,
        temporal_kernels: tuple[int, int] | None = None,
        refine_3d: bool = False,
        groups_in: int | None = None,
    ) -> None:
        super().__init__()
        self.is_temporal = temporal_kernels is not None

        def conv(cin: int, kernel_index: int) -> nn.Module:
            if temporal_kernels is None:
                return make.Conv2d(cin, out_channels, 3, padding=1)
            k = temporal_kernels[kernel_index]
            return make.ConvAlongTime(cin, out_channels, (k, 1, 1), padding=(k // 2, 0, 0))

        self.norm1 = make.GroupNorm(groups_in or groups(in_channels), in_channels, eps=eps)
        self.conv1: Any = conv(in_channels, 0)
        self.time_emb_proj = (
            None if time_channels is None else make.Linear(time_channels, out_channels)
        )
        self.norm2 = make.GroupNorm(groups(out_channels), out_channels, eps=eps)
        self.conv2: Any = conv(out_channels, 1)
        same = in_channels == out_channels
        self.conv_shortcut = None if same else make.Conv2d(in_channels, out_channels, 1)
        self.conv_3d = None
        if refine_3d:
            self.norm_3d = make.GroupNorm(groups(out_channels), out_channels, eps=eps)
            self.conv_3d = make.Conv3d(out_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        """``x`` (b c t h w); ``time`` (b, time_channels), already through its SiLU."""
        if self.time_emb_proj is not None and time is None:
            raise TypeError("this resnet has a time projection but no embedding was given")
        shift = None if self.time_emb_proj is None else self.time_emb_proj(time)
        way = ways.of(x.device)
        cut = not self.is_temporal and way.cuts(x, self.conv1.out_channels)
        if cut and stripes.serves(self):
            return stripes.resnet(self, x, shift)
        # Not held in a variable here, so that it is free (from Python 3.11 on) once it was used.
        x = way.summed(self.conv2, self._changed(x, shift), x, self.conv_shortcut)
        if self.conv_3d is not None:
            x = way.summed(self.conv_3d, way.activated(self.norm_3d, x), x)
        return x

    def _changed(self, x: Tensor, shift: Tensor | None) -> Tensor:
        """What the second convolution gets."""
        way = ways.of(x.device)
        h, shift = way.unbiased(self.conv1, way.activated(self.norm1, x), shift)
        return way.activated(self.norm2, h, shift)


class Downsample(nn.Module):
    """3x3 convolution of stride 2; ``padding`` 0 pads right and bottom only, as in VAEs."""

    def __init__(self, make: Layers, channels: int, *, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = make.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        if self.padding == 0:
            x = F.pad(x, (0, 1, 0, 1))
        return per_frame(self.conv, x)


class Upsample(nn.Module):
    """Nearest-neighbour resize, then a 3x3 convolution."""

    def __init__(self, make: Layers, channels: int) -> None:
        super().__init__()
        self.conv = make.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """``size`` (h, w) of the result; twice the input's if None."""
        way, twice = ways.of(x.device), (2 * x.shape[-2], 2 * x.shape[-1])
        size = size or twice
        cut = tuple(size) == twice and way.cuts(x, x.shape[1], enlarged=4)
        if cut and stripes.serves(self):
            return stripes.enlarged(self.conv, x)
        return way.convolve(self.conv, per_frame(lambda f: F.interpolate(f, size=size), x))


def to_tokens(x: Tensor) -> Tensor:
    """b c t h w -> b t (h w) c."""
    return rearrange(x, "b c t h w -> b t (h w) c")


def from_tokens(x: Tensor, h: int, w: int) -> Tensor:
    """b t (h w) c -> b c t h w."""
    return rearrange(x, "b t (h w) c -> b c t h w", h=h, w=w)
