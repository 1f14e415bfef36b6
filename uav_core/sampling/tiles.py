"""Plans of overlapping tiles of a picture, and networks run on one tile at a time.

On a tile, a network's normalisation and attention see that tile only, so the result differs from
that of the whole frame. Tiles share pixels, over which one fades into the next; a plan of one tile
changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..callbacks import ignore
from ..errors import InputError
from ..models.vae import UPSCALE, TemporalVAE

MULTIPLE = 8
"""The U-Net halves a picture three times: tiles that are multiples of it halve evenly."""
OVERLAP = 16
"""Pixels of the low-resolution frame that neighbouring tiles share."""


@dataclass(frozen=True)
class Tile:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` (both exclusive)."""

    top: int
    bottom: int
    left: int
    right: int

    def crop(self, x: Tensor) -> Tensor:
        """The view of ``x`` (..., h, w) that this tile covers."""
        return x[..., self.top : self.bottom, self.left : self.right]

    def scaled(self, factor: int) -> Tile:
        """The same part of a picture ``factor`` times as large."""
        return Tile(*(factor * side for side in (self.top, self.bottom, self.left, self.right)))


def plan_tiles(
    size: Sequence[int], side: int | None, overlap: int | None = None
) -> tuple[Tile, ...]:
    """Square tiles that cover a picture of a ``size`` (h, w), row by row.

    A picture not larger than ``side`` is one tile, and any picture if ``side`` is None or 0.
    Otherwise all tiles have one size: per axis the picture's own where it fits, else ``side``
    rounded down to a multiple of 8. Neighbours share ``overlap`` pixels (None: 0) or, as tiles
    start at multiples of 8, up to 7 more; a tile that would run past the end is moved back, and
    shares more.

    Raises InputError for an empty picture, or an overlap that leaves less than 8 pixels of a tile.
    """
    (h, w), overlap = size, overlap or 0
    if not side:
        return (Tile(0, h, 0, w),)
    if h < 1 or w < 1:
        raise InputError(f"A picture of {w}x{h}: expected at least one pixel a side.")
    if overlap < 0 or side // MULTIPLE * MULTIPLE - overlap < MULTIPLE:
        raise InputError(
            f"Tiles of {side}x{side} pixels with an overlap of {overlap}: expected an overlap of "
            f"0 or more, and a tile size, rounded down to a multiple of {MULTIPLE}, that is at "
            f"least {MULTIPLE} larger than the overlap. Use larger tiles or a smaller overlap."
        )
    rows, columns = _spans(h, side, overlap), _spans(w, side, overlap)
    return tuple(Tile(*row, *column) for row in rows for column in columns)


def _spans(side: int, length: int, overlap: int) -> list[tuple[int, int]]:
    """(start, stop) of the tiles along one axis."""
    if side <= length:
        return [(0, side)]
    length = length // MULTIPLE * MULTIPLE
    step = (length - overlap) // MULTIPLE * MULTIPLE
    last = side - length
    return [(start, start + length) for start in (*range(0, last, step), last)]


def _shares(spans: set[tuple[int, int]]) -> dict[tuple[int, int], Tensor]:
    """The weights of each tile at its positions along one axis; they sum to 1 everywhere.

    They are raised cosines over shared pixels: their slope is 0 where a tile begins and ends, so
    nothing changes abruptly there.
    """

    def rise(n: int) -> Tensor:
        steps = torch.arange(n, dtype=torch.float64) + 0.5
        return steps.mul(math.pi / 2 / max(n, 1)).sin().square()

    ordered = sorted(spans)
    total = torch.zeros(ordered[-1][1], dtype=torch.float64)
    shares = []
    for i, (start, stop) in enumerate(ordered):
        share = torch.ones(stop - start, dtype=torch.float64)
        before = ordered[i - 1][1] - start if i > 0 else 0
        after = stop - ordered[i + 1][0] if i + 1 < len(ordered) else 0
        share[:before] *= rise(before)
        share[stop - start - after :] *= rise(after).flip(0)
        total[start:stop] += share
        shares.append(share)
    # Divided by the total, as three tiles may overlap where the last one was moved back.
    return {
        (start, stop): (share / total[start:stop]).float()
        for share, (start, stop) in zip(shares, ordered, strict=True)
    }


def blended(plan: Sequence[Tile], made: Callable[[Tile], Tensor], factor: int = 1) -> Tensor:
    """The picture made of the tiles that ``made`` returns, each fading into the next.

    One tile is held at a time; the weighted sum is in fp32 or better, on the device of the first.
    Each result is (..., h, w), ``factor`` times as large as its tile; InputError otherwise.
    """
    large = [tile.scaled(factor) for tile in plan]
    rows = _shares({(tile.top, tile.bottom) for tile in large})
    columns = _shares({(tile.left, tile.right) for tile in large})
    total, dtype = None, torch.float32
    for tile, place in zip(plan, large, strict=True):
        part = made(tile)
        want = (place.bottom - place.top, place.right - place.left)
        if tuple(part.shape[-2:]) != want:
            raise InputError(
                f"The result of {tile} has (h, w) {tuple(part.shape[-2:])}: expected {want}."
            )
        if total is None:
            dtype = part.dtype
            exact = torch.promote_types(dtype, torch.float32)
            shape = (*part.shape[:-2], large[-1].bottom, large[-1].right)
            total = torch.zeros(shape, dtype=exact, device=part.device)
        weight = rows[place.top, place.bottom][:, None] * columns[place.left, place.right]
        place.crop(total).addcmul_(part.to(total), weight.to(total))
        del part
    assert total is not None, "the plan has no tiles: expected at least one"
    return total.to(dtype)


def tiled_predict(
    predict: Callable[..., Tensor],
    plan: Sequence[Tile],
    check_cancelled: Callable[[], None] = ignore,
) -> Callable[..., Tensor]:
    """A function that runs ``predict`` on one tile after the other and blends the results.

    Every argument, positional or by name, that is a tensor of four or more dims and ends in the
    planned picture's (h, w) is cropped; all others pass unchanged. So a latent, frames and noise
    are cropped alike, and a text (b, tokens, dim) is left alone. The results must have the tile's
    size. ``check_cancelled()`` is called before each tile and may raise. A plan of one tile
    returns ``predict`` itself.
    """
    if len(plan) == 1:
        return predict
    size = (plan[-1].bottom, plan[-1].right)

    def cropped(value: Any, tile: Tile) -> Any:
        if isinstance(value, Tensor) and value.ndim >= 4 and tuple(value.shape[-2:]) == size:
            return tile.crop(value)
        return value

    def predict_tiles(*args: Any, **kwargs: Any) -> Tensor:
        def one(tile: Tile) -> Tensor:
            check_cancelled()
            places = [cropped(value, tile) for value in args]
            return predict(*places, **{n: cropped(value, tile) for n, value in kwargs.items()})

        return blended(plan, one)

    return predict_tiles


def tiled_decode(
    vae: TemporalVAE,
    z: Tensor,
    low_res: Tensor | None,
    w: float,
    plan: Sequence[Tile],
    check_cancelled: Callable[[], None] = ignore,
) -> Tensor:
    """Decode one group of frames tile by tile, blended in pixels.

    Args:
        vae, z, low_res, w: as ``TemporalVAE.decode`` takes them: z (b, c, t, h, w), already
            divided by the latent scale, low_res (b, 3, t, h, w) or None.
        plan: of the latent's (h, w). One tile gives exactly what ``vae.decode`` gives.
        check_cancelled: called before each tile; may raise.

    Returns:
        (b, 3, t, 4h, 4w), about [-1, 1], not clamped.

    Raises:
        InputError: the plan is for another size, or as ``TemporalVAE.decode``.
    """
    want = (plan[-1].bottom, plan[-1].right)
    for name, x in (("latent", z), ("low-resolution frames", low_res)):
        if x is not None and tuple(x.shape[-2:]) != want:
            raise InputError(
                f"(h, w) of the {name} is {tuple(x.shape[-2:])}, but the plan of tiles is for "
                f"{want}: expected the same. Plan the tiles for this latent."
            )

    def one(tile: Tile) -> Tensor:
        check_cancelled()
        frames = None if low_res is None else tile.crop(low_res)
        return vae.decode(tile.crop(z), frames, w)

    return one(plan[0]) if len(plan) == 1 else blended(plan, one, UPSCALE)
