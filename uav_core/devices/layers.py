"""Layer classes that compute in a device's way, made from those that ComfyUI or PyTorch supplies.

The weights always come through the supplied class, which may cast, stream or patch them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import mkldnn

from .layout import channels_last, per_frame
from .linear import Linear, is_plain_fp32

Work = Callable[[Tensor, Tensor | None], Any]


def kept(weight: Tensor | None) -> Tensor | None:
    """``weight``, or a copy of it if it is no parameter.

    Streamed weights may be overwritten as soon as their layer has returned or another has begun.
    """
    return weight if weight is None or isinstance(weight, nn.Parameter) else weight.clone()


class Lending(nn.Module):
    """Mixin for a convolution: passes the weights it would compute with to a function."""

    out_channels: int
    _work: Work | None = None

    @property
    def lends(self) -> bool:
        """Whether ``lend`` may be used: not where something else has taken the place of forward.

        ComfyUI's *Load LoRA (Bypass)* adds its part to what forward returns.
        """
        return getattr(self.forward, "__func__", None) is type(self).forward

    def lend(self, work: Work, like: Tensor) -> Any:
        """``work(weight, bias)`` with the weights for an input such as ``like``.

        ``work`` must not call another layer, whose streamed weights might take their place.
        """
        self._work = work
        try:
            return self(like)
        finally:
            self._work = None

    def without_bias(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The convolution of ``x`` (b c t h w) before its bias is added, and the bias it has."""

        def work(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
            return self._of_clip(x, weight, None), kept(bias)

        return self.lend(work, x)

    def plus(self, h: Tensor, x: Tensor, shortcut: Lending) -> Tensor:
        """The convolution of ``h`` plus ``shortcut``, a 1x1 convolution, of ``x``.

        The product of ``shortcut`` is added as it is computed, its bias with the bias here.
        """
        direct, further = shortcut.lend(lambda *given: [*map(kept, given)], x)
        out = channels_last(
            self.lend(lambda weight, bias: self._of_clip(h, weight, bias + further), h)
        )
        sums, rows = (y.movedim(1, -1).view(-1, y.shape[1]) for y in (out, channels_last(x)))
        sums.addmm_(rows, direct.flatten(1).t())
        return out

    def _of_clip(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution of ``x`` (b c t h w), frame by frame if it is a 2-D one."""
        if weight.ndim != 4:
            return self.computed(x, weight, bias)
        return per_frame(lambda frames: self.computed(frames, weight, bias), x)

    def computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with these weights."""
        return super()._conv_forward(x, weight, bias)  # type: ignore[misc]

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, *_: Any, **__: Any
    ) -> Any:
        if self._work is not None:
            return self._work(weight, bias)
        return self.computed(input, weight, bias)


class AlongTime(Lending):
    """Mixin for a Conv3d of kernel (k, 1, 1): runs it as a 2-D convolution, twice as fast.

    The image of that convolution has time as its height and all positions of a frame as its
    width; with the channels last it is a view.
    """

    def computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with these weights."""
        h, w = x.shape[-2:]
        out = F.conv2d(x.flatten(-2), weight[..., 0], bias, padding=(weight.shape[2] // 2, 0))
        return out.unflatten(-1, (h, w))


class InSpaceAndTime(Lending):
    """Mixin for any other Conv3d: on a CPU in fp32 it runs in oneDNN, whatever its size.

    For small inputs of one clip (channels x frames x rows up to 20,480) PyTorch uses a convolution
    of its own, which takes four times as long.
    """

    padding: Any
    stride: Any
    dilation: Any
    groups: int

    def computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with these weights."""
        if is_plain_fp32(x) and weight.dtype == torch.float32 and mkldnn.is_available():
            given = self.padding, self.stride, self.dilation, self.groups
            return torch.mkldnn_convolution(x, weight, bias, *given)
        return super().computed(x, weight, bias)


WEIGHTS = ("weight", "bias")


class Probe(Tensor):
    """A stand-in for the input of a norm that records the weights passed with it."""

    weights: tuple[Tensor, Tensor] | None = None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.group_norm:
            return super().__torch_function__(func, types, args, kwargs or {})
        given = dict(zip(("input", "num_groups", "weight", "bias", "eps"), args, strict=False))
        given |= kwargs or {}
        given["input"].weights = tuple(map(kept, map(given.get, WEIGHTS)))
        return given["input"]


class GroupNorm(nn.GroupNorm):
    """A norm that can return the weights it would compute with."""

    def weights_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias (c,) for inputs such as ``x``, as the supplied class casts or streams."""
        probe = x.new_empty((1, self.num_channels, 1)).as_subclass(Probe)
        self(probe)
        assert probe.weights is not None, f"{type(self).__name__} is not a norm of PyTorch"
        return probe.weights


class Layers:
    """The layer classes of ``supplied`` (``torch.nn``, or ComfyUI's), each in a device's way.

    ``make.Linear(3, 4)`` is a layer of ``make``'s dtype and device. Other layers are made by their
    names too, and so is ``ConvAlongTime``, a Conv3d for kernels (k, 1, 1).
    """

    def __init__(self, supplied: Any = nn, dtype: Any = None, device: Any = None) -> None:
        self.supplied, self.dtype, self.device = supplied, dtype, device

    def __getattr__(self, name: str) -> Any:
        layer = _fitted(self.supplied, name)
        return functools.partial(layer, dtype=self.dtype, device=self.device)


def _above(layer: type[nn.Module], mixin: type[nn.Module]) -> Any:
    """A subclass of ``layer`` that computes as ``mixin`` does."""
    return type(layer.__name__, (mixin, layer), {})


def _beneath(layer: type[nn.Module], base: type[nn.Module]) -> Any:
    """``layer`` on top of ``base`` instead of PyTorch's class."""
    return base if layer is base.__mro__[1] else type(layer.__name__, (layer, base), {})


_CHANGED = {
    # For Linear and GroupNorm, our class stands where the supplied one calls PyTorch's.
    "Linear": ("Linear", _beneath, Linear),
    "GroupNorm": ("GroupNorm", _beneath, GroupNorm),
    "Conv2d": ("Conv2d", _above, Lending),
    "Conv3d": ("Conv3d", _above, InSpaceAndTime),
    "ConvAlongTime": ("Conv3d", _above, AlongTime),
}


@functools.cache
def _fitted(supplied: Any, name: str) -> Any:
    """The layer class called ``name``; classes not in ``_CHANGED`` stay as supplied."""
    if name not in _CHANGED:
        return getattr(supplied, name)
    known, change, own = _CHANGED[name]
    return change(getattr(supplied, known), own)


PLAIN = Layers()
