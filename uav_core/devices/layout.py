"""Clips ``b c t h w`` with the channels last in memory: frames and tokens are views of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The memory format by number of axes."""


def channels_last(x: Tensor) -> Tensor:
    """``x`` with its channels last in memory; ``x`` itself where they already are."""
    return x.contiguous(memory_format=CHANNELS_LAST[x.ndim])


def by_channel(values: Tensor, x: Tensor) -> Tensor:
    """``values``, (c) or (b, c), in a shape that is added to ``x`` (b c ...)."""
    return values[(...,) + (None,) * (x.ndim - 2)]


def per_frame(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a 2-D ``layer`` to every frame of ``x`` (b c t h w)."""
    out = layer(x.transpose(1, 2).flatten(0, 1))
    return out.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y, written into ``x`` unless gradients are asked for."""
    return x + y if torch.is_grad_enabled() else x.add_(y)
