"""Layer classes that work in a device's way, made of those that ComfyUI or PyTorch supplies.

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

from .linear import Linear, is_plain_fp32

Work = Callable[[Tensor, Tensor | None], Any]


class Lending(nn.Module):
    """Mixed into a convolution: lends the weights it would compute with to a function."""

    out_channels: int
    _work: Work | None = None

    def lend(self, work: Work, like: Tensor) -> Any:
        """``work(weight, bias)`` with the weights for an input such as ``like``."""
        self._work = work
        try:
            return self(like)
        finally:
            self._work = None

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
    """Mixed into a Conv3d of kernel (k, 1, 1): runs it as a 2-D convolution, twice as fast.

    The image of that convolution has time as its height and all positions of a frame as its
    width; with the channels last it is a view.
    """

    def computed(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with these weights."""
        h, w = x.shape[-2:]
        out = F.conv2d(x.flatten(-2), weight[..., 0], bias, padding=(weight.shape[2] // 2, 0))
        return out.unflatten(-1, (h, w))


class InSpaceAndTime(Lending):
    """Mixed into any other Conv3d: on a CPU in fp32 by oneDNN, whatever its size.

    PyTorch has small ones of one clip (channels x frames x rows up to 20,480) computed by a
    convolution of its own that takes four times as long.
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
    """Stands for the input of a norm: notes the weights that come with it."""

    weights: tuple[Tensor, Tensor] | None = None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.group_norm:
            return super().__torch_function__(func, types, args, kwargs or {})
        given = dict(zip(("input", "num_groups", "weight", "bias", "eps"), args, strict=False))
        given |= kwargs or {}
        # Those that stream may be overwritten as soon as the layer has returned.
        kept = (w if isinstance(w, nn.Parameter) else w.clone() for w in map(given.get, WEIGHTS))
        given["input"].weights = tuple(kept)
        return given["input"]


class GroupNorm(nn.GroupNorm):
    """A norm that tells the weights it would compute with."""

    def weights_for(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and bias (c,) for inputs such as ``x``, as the supplied class casts or streams."""
        probe = x.new_empty((1, self.num_channels, 1)).as_subclass(Probe)
        self(probe)
        assert probe.weights is not None, f"{type(self).__name__} is no norm of PyTorch's"
        return probe.weights


class Layers:
    """The layer classes of ``supplied`` (``torch.nn``, or ComfyUI's), each in a device's way.

    ``make.Linear(3, 4)`` is a layer in the dtype and on the device that it was made with; so are
    the others by their names, and ``ConvAlongTime``, a Conv3d for kernels (k, 1, 1).
    """

    def __init__(self, supplied: Any = nn, dtype: Any = None, device: Any = None) -> None:
        self.supplied, self.dtype, self.device = supplied, dtype, device

    def __getattr__(self, name: str) -> Any:
        layer = _fitted(self.supplied, name)
        return functools.partial(layer, dtype=self.dtype, device=self.device)


def _above(layer: type[nn.Module], mixin: type[nn.Module]) -> Any:
    """``layer`` with its computing replaced by that of ``mixin``."""
    return type(layer.__name__, (mixin, layer), {})


def _beneath(layer: type[nn.Module], base: type[nn.Module]) -> Any:
    """``layer`` with the class of PyTorch's that it builds on replaced by ``base``."""
    return base if layer is base.__mro__[1] else type(layer.__name__, (layer, base), {})


_CHANGED = {
    # Ours computes where the supplied class leaves that to PyTorch's.
    "Linear": ("Linear", _beneath, Linear),
    "GroupNorm": ("GroupNorm", _beneath, GroupNorm),
    "Conv2d": ("Conv2d", _above, Lending),
    "Conv3d": ("Conv3d", _above, InSpaceAndTime),
    "ConvAlongTime": ("Conv3d", _above, AlongTime),
}


@functools.cache
def _fitted(supplied: Any, name: str) -> Any:
    """The class of that name; those that are not changed as they are supplied."""
    if name not in _CHANGED:
        return getattr(supplied, name)
    known, change, own = _CHANGED[name]
    return change(getattr(supplied, known), own)


PLAIN = Layers()
