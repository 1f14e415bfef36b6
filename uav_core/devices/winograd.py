"""Winograd's 3x3 convolutions, for CPUs: a quarter of the multiplications.

A row of outputs is a product of polynomials, so it can be computed from values at six points
(Toom 1963, Cook 1966; in two dimensions Winograd 1980, Lavin & Gray 2016, F(4x4, 3x3)): along both
sides of a frame, 36 products of channels do the work of 144. The sums around them cost little where
channels and positions are many. Results are those of the plain convolution to rounding; the points
0, +-3/4, +-3/2 and infinity keep the error at that of a plain one in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .linear import is_plain_fp32, linear

PAIRS = (0.75, 1.5)
"""Points of evaluation, each used with its negative, in addition to 0 and infinity."""
OUTPUTS, TAPS = 4, 3
TILE = OUTPUTS + TAPS - 1
"""Inputs along one axis that a tile of outputs is computed from."""
LEAST_CHANNELS = 192
LEAST_POSITIONS = 1024
"""Below these a CPU gains nothing: the extra sums take the time that the products save."""

Product = Callable[[Tensor, Tensor], Tensor]
"""product(x, w): the rest of the convolution of ``x``, at one of the points."""


def serves(x: Tensor, out_channels: int) -> bool:
    """Whether this method is faster for ``x`` (n c h w, or b c t h w), frame by frame."""
    return (
        is_plain_fp32(x)
        and min(x.shape[1], out_channels) >= LEAST_CHANNELS
        and x.numel() // x.shape[1] >= LEAST_POSITIONS
    )


def padded_size(size: int) -> int:
    """Length of a side of ``size`` that is padded to whole tiles, with its border."""
    return -(-size // OUTPUTS) * OUTPUTS + TAPS - 1


def convolve_frames(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution of frames (n c h w) that keeps their size; channels last."""
    n, _, h, w = x.shape
    border = (1, padded_size(w) - w - 1, 1, padded_size(h) - h - 1)
    padded = F.pad(x, border).permute(0, 2, 3, 1).contiguous()
    out = x.new_empty((n, h, w, len(weight)))
    convolve(padded, by_column(weight), bias, out)
    return out.permute(0, 3, 1, 2)


def by_column(weight: Tensor) -> Tensor:
    """(o c 3 3) -> (column, row, o, c), in one piece."""
    return weight.permute(3, 2, 0, 1).contiguous()


def convolve(padded: Tensor, taps: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """A 3x3 convolution of frames, written to ``out`` (n h w o).

    ``padded`` (n, padded_size(h), padded_size(w), c) holds the frames in a border of zeros;
    ``taps`` come from ``by_column``.
    """
    n, h, _, channels = out.shape

    def along_column(columns: Tensor, taps: Tensor) -> Tensor:
        result = columns.new_empty((n, h, columns.shape[2], channels))
        _convolve_along(1, columns, taps, None, result, linear)
        return result

    _convolve_along(2, padded, taps, bias, out, along_column)


def _convolve_along(
    axis: int, x: Tensor, taps: Tensor, bias: Tensor | None, out: Tensor, product: Product
) -> None:
    """The convolution of ``x`` along ``axis`` with three ``taps``, written to ``out``."""
    every = (slice(None),) * axis
    tiles = (x.shape[axis] - TAPS + 1) // OUTPUTS
    x0, x1, x2, x3, x4, x5 = (
        x[(*every, slice(k, k + OUTPUTS * (tiles - 1) + 1, OUTPUTS))] for k in range(TILE)
    )
    results = [out[(*every, slice(k, None, OUTPUTS))] for k in range(OUTPUTS)]
    begun: set[int] = set()

    def give(k: int, part: Tensor, factor: float) -> None:
        """Add to the outputs k, k + 4, ..."""
        result = results[k]
        part = part.narrow(axis, 0, result.shape[axis])
        if k in begun:
            result.add_(part, alpha=factor)
        elif bias is not None:
            torch.add(bias, part, alpha=factor, out=result)
        else:
            torch.mul(part, factor, out=result)
        begun.add(k)

    p, q = (point * point for point in PAIRS)
    here = torch.add(x4, x2, alpha=-p - q).add_(x0, alpha=p * q)
    give(0, product(here, taps[0]), _share(0.0))
    here = torch.add(x5, x3, alpha=-p - q).add_(x1, alpha=p * q)
    give(OUTPUTS - 1, product(here, taps[2]), 1)
    del here
    for point, other in zip(PAIRS, (q, p), strict=True):
        # At a point and its negative the odd part differs in sign only.
        even, odd = torch.add(x4, x2, alpha=-other), torch.add(x3, x1, alpha=-other)
        w_even, w_odd = torch.add(taps[0], taps[2], alpha=point * point), taps[1]
        plus = product(torch.add(even, odd, alpha=point), torch.add(w_even, w_odd, alpha=point))
        minus = product(even.sub_(odd, alpha=point), w_even.sub_(w_odd, alpha=point))
        del even, odd, w_even
        difference = plus - minus
        total = plus.add_(minus)
        del plus, minus
        for k in range(OUTPUTS):
            give(k, difference if k % 2 else total, point**k * _share(point))


@cache
def _share(point: float) -> float:
    """1 over the product of the distances from ``point`` to the others, without infinity."""
    distances = 1.0
    for other in (0.0, *PAIRS, *(-pair for pair in PAIRS)):
        if other != point:
            distances *= point - other
    return 1 / distances
