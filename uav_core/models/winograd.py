"""3x3 convolutions on a CPU with a quarter of the multiplications.

A tile of 4x4 results depends on 6x6 inputs. Seen as products of polynomials, evaluated at five
points and infinity, each tile takes 36 multiplications a pair of channels in place of 144 (Toom
1963, Cook 1966, Winograd 1980; for networks Lavin & Gray 2016, arXiv 1509.09308). GPUs' libraries
do this by themselves.

The usual points 0, +-1, +-2 magnify rounding; 0, +-3/4, +-3/2 keep it at what the plain convolution
has in fp32 (root mean square 1.3e-6 of the results' own, against 1.0e-6).
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import torch
from torch import Tensor

TILE = 4
_TAPS = 3
_REACH = TILE + _TAPS - 1
_POINTS = (Fraction(0), Fraction(3, 4), Fraction(-3, 4), Fraction(3, 2), Fraction(-3, 2))

LEAST_CHANNELS = 128
"""With fewer channels the way there and back takes longer than what is saved."""
LEAST_TILES = 96
"""With fewer tiles, transforming the weights does."""
WORKSPACE = 16 * 2**20
"""Bytes that intermediate tensors may take together: the work is cut to fit, down to 32 channels
of a frame."""

LEAST_BATCH = 32

Matrices = tuple[Tensor, Tensor, Tensor]


def serves(x: Tensor, weight: Tensor) -> bool:
    """Whether a 3x3 convolution of ``x`` (n c h w), padded by 1, is faster this way."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32:
        return False
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    if tuple(weight.shape[2:]) != (_TAPS, _TAPS) or min(weight.shape[:2]) < LEAST_CHANNELS:
        return False
    n, _, h, w = x.shape
    return min(h, w) > 2 * TILE and n * _tiles(h) * _tiles(w) >= LEAST_TILES


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)`` of ``x`` (n c h w), with the channels last."""
    n, cin, h, w = x.shape
    cout = weight.shape[0]
    down, across = _tiles(h), _tiles(w)
    out = torch.empty(
        (n, cout, down * TILE, across * TILE), dtype=x.dtype, memory_format=torch.channels_last
    )
    there, taps, back = _matrices()
    products = _REACH**2
    frames, channels = _batch(n, down * across, cin, cout)
    padded = x.new_zeros(frames, down * TILE + 2, across * TILE + 2, cin)
    for first in range(0, n, frames):
        count = min(frames, n - first)
        padded[:count, 1 : h + 1, 1 : w + 1] = x[first : first + count].permute(0, 2, 3, 1)
        inputs = _transformed_tiles(padded[:count], there, down, across)
        tiles = out[first : first + count].permute(0, 2, 3, 1)
        tiles = tiles.unflatten(1, (down, TILE)).unflatten(3, (across, TILE))
        for start in range(0, cout, channels):
            part = weight[start : start + channels]
            flat = part.reshape(-1, _TAPS**2)
            kernels = (taps @ flat.T).view(products, -1, cin).transpose(1, 2)
            results = torch.bmm(inputs, kernels).view(products, -1)
            results = (back @ results).view(TILE, TILE, count, down, across, -1)
            rows = results.permute(2, 3, 0, 4, 1, 5)
            target = tiles[..., start : start + channels]
            if bias is None:
                target.copy_(rows)
            else:
                torch.add(rows, bias[start : start + channels], out=target)
    return out[..., :h, :w]


def _batch(frames: int, tiles: int, cin: int, cout: int) -> tuple[int, int]:
    """How many frames, and channels of the result, to compute at once."""
    most = WORKSPACE // (4 * _REACH**2)
    # The tiles before and after their transform.
    count = min(frames, max(1, most // (2 * cin * tiles)))
    tiles *= count
    # Those after it, transformed weights, products, and what becomes of these.
    each = cin + tiles + tiles * TILE**2 // _REACH**2
    return count, min(cout, max(LEAST_BATCH, (most - cin * tiles) // each))


def _transformed_tiles(padded: Tensor, there: Tensor, down: int, across: int) -> Tensor:
    """(36, tiles, c) of every 6x6 tile of ``padded`` (n h w c)."""
    n, height, width, c = padded.shape
    row = width * c
    tiles = padded.as_strided(
        (_REACH, _REACH, n, down, across, c),
        (row, c, height * row, TILE * row, TILE * c, 1),
    )
    return (there @ tiles.reshape(_REACH**2, -1)).view(_REACH**2, -1, c)


def _tiles(side: int) -> int:
    return -(-side // TILE)


@functools.cache
def _matrices() -> Matrices:
    """What transforms tiles (36, 36), weights (36, 9) and products (16, 36), both axes at once."""
    others = [_POINTS[:i] + _POINTS[i + 1 :] for i in range(len(_POINTS))]
    there = [[*_polynomial(rest), Fraction(0)] for rest in others]
    there.append(_polynomial(_POINTS))
    taps = [
        [point**j / math.prod(point - other for other in rest) for j in range(_TAPS)]
        for point, rest in zip(_POINTS, others, strict=True)
    ]
    taps.append([Fraction(j == _TAPS - 1) for j in range(_TAPS)])
    back = [[point**j for point in _POINTS] + [Fraction(j == TILE - 1)] for j in range(TILE)]

    def both_axes(matrix: list[list[Fraction]]) -> Tensor:
        one = torch.tensor([[float(value) for value in row] for row in matrix], dtype=torch.float64)
        return torch.kron(one, one).float()

    return both_axes(there), both_axes(taps), both_axes(back)


def _polynomial(roots: tuple[Fraction, ...]) -> list[Fraction]:
    """Coefficients of the product of (x - root), the constant first."""
    coefficients = [Fraction(1)]
    for root in roots:
        raised = [Fraction(0), *coefficients]
        lowered = [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(raised, lowered, strict=True)]
    return coefficients
