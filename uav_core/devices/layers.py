"""Layer classes that work in a device's way, made of those that ComfyUI or PyTorch supplies.

The weights always come through the supplied class, which may cast, stream or patch them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear

Work = Callable[[Tensor, Tensor | None], Tensor]


class Lending(nn.Module):
    """Mixed into a convolution: lends the weights it would compute with to a function."""

    out_channels: int
    _work: Work | None = None

    def lend(self, work: Work, like: Tensor) -> Tensor:
        """``work(weight, bias)`` with the weights for an input such as ``like``."""
        self._work = work
        try:
            return self(like)
        finally:
            self._work = None

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, *args: Any, **kwargs: Any
    ) -> Tensor:
        if self._work is not None:
            return self._work(weight, bias)
        return super()._conv_forward(input, weight, bias, *args, **kwargs)  # type: ignore[misc]


class AlongTime(nn.Module):
    """Mixed into a Conv3d of kernel (k, 1, 1): runs it as a 2-D convolution, twice as fast.

    The image of that convolution has time as its height and all positions of a frame as its
    width; with the channels last it is a view.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None, **_: Any) -> Tensor:
        h, w = input.shape[-2:]
        out = F.conv2d(input.flatten(-2), weight[..., 0], bias, padding=(weight.shape[2] // 2, 0))
        return out.unflatten(-1, (h, w))


class GroupNorm(nn.GroupNorm):
    """A norm that tells the weights it would compute with."""

    _told: list[tuple[Tensor, Tensor]] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """``input`` (b c ...), normalised in groups of channels."""
        if self._told is not None:
            self._told.append((self.weight, self.bias))
            return input
        return super().forward(input)

    def weights_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias (c,) for inputs such as ``x``.

        A supplied class that computes itself, as one does that streams its weights, is asked for
        what it makes of a spike among zeros: of 0 the bias, of the spike the weight times 32.
        """
        self._told = []
        try:
            self(x.new_empty((1, self.num_channels, 2)))
            if self._told:
                return self._told[0]
            spike = x.new_zeros((1, self.num_channels, SPIKE))
            spike[..., 0].fill_(1)
            out = self(spike)
        finally:
            self._told = None
        # The groups' mean is 1 / n, their variance (n - 1) / n^2, for n positions.
        n = SPIKE
        spread = ((n - 1) / n**2 + self.eps) ** 0.5
        high, low = (1 - 1 / n) / spread, (-1 / n) / spread
        ends = out[0, :, :2].float()
        weight = (ends[:, 0] - ends[:, 1]) / (high - low)
        return weight, ends[:, 1] - weight * low


SPIKE = 1024
"""Positions of the input that is asked with: the more, the less its rounding shows."""


class Operations:
    """The layers of ``supplied``, each of which works in a device's way."""

    def __init__(self, supplied: Any) -> None:
        self._supplied = supplied

    def __getattr__(self, name: str) -> Any:
        return getattr(self._supplied, name)

    @functools.cached_property
    def Linear(self) -> Any:
        """``Linear`` where the supplied class leaves the computing to PyTorch's."""
        return _beneath(self._supplied.Linear, Linear)

    @functools.cached_property
    def GroupNorm(self) -> Any:
        """One that tells its weights."""
        return _beneath(self._supplied.GroupNorm, GroupNorm)

    @functools.cached_property
    def Conv2d(self) -> Any:
        """One that lends its weights."""
        return _above(self._supplied.Conv2d, Lending)

    @functools.cached_property
    def Conv3d(self) -> Any:
        """One that lends its weights."""
        return _above(self._supplied.Conv3d, Lending)

    @functools.cached_property
    def ConvAlongTime(self) -> Any:
        """A Conv3d for kernels (k, 1, 1)."""
        return _above(self._supplied.Conv3d, AlongTime)


@functools.cache
def fitted(supplied: Any) -> Any:
    """The operations of ``supplied`` (``torch.nn``, or ComfyUI's) in a device's way."""
    return supplied if isinstance(supplied, Operations) else Operations(supplied)


def _above(layer: type[nn.Module], mixin: type[nn.Module]) -> Any:
    """``layer`` with its computing replaced by that of ``mixin``."""
    return type(layer.__name__, (mixin, layer), {})


def _beneath(layer: type[nn.Module], base: type[nn.Module]) -> Any:
    """``layer`` with the class of PyTorch's that it builds on replaced by ``base``."""
    return base if layer is base.__mro__[1] else type(layer.__name__, (layer, base), {})


PLAIN = fitted(cast(Any, nn))
