"""Plans of overlapping tiles of a picture, and networks run on one tile at a time.

Networks that see a tile see less than the frame: their normalisation and attention take in the
tile alone, so the result differs from that of the whole frame. Tiles share pixels, over which one
fades into the next; a plan of one tile changes nothing.
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


def plan_tiles(h: int, w: int, tile: tuple[int, int], overlap: int = OVERLAP) -> tuple[Tile, ...]:
    """Tiles that cover a picture of h x w pixels, row by row.

    A picture not larger than ``tile`` (height, width) is one tile. Otherwise all tiles have one
    size: per axis the picture's own where it fits, else ``tile``'s rounded down to a multiple of
    8. Neighbours share ``overlap`` pixels or, as tiles start at multiples of 8, up to 7 more; one
    that would run past the end is moved back to end there, and shares more.

    Raises InputError for an empty picture, or an overlap that leaves less than 8 pixels of a tile.
    """
    if h < 1 or w < 1:
        raise InputError(f"A picture of {w}x{h}: expected at least one pixel a side.")
    room = min(tile) // MULTIPLE * MULTIPLE - overlap
    if overlap < 0 or room < MULTIPLE:
        raise InputError(
            f"Tiles of {tile[1]}x{tile[0]} that share {overlap} pixels: expected an overlap of 0 "
            f"or more, and tiles at least {MULTIPLE} pixels larger than it, in multiples of "
            f"{MULTIPLE}. Use larger tiles or a smaller overlap."
        )
    return tuple(
        Tile(top, bottom, left, right)
        for top, bottom in _spans(h, tile[0], overlap)
        for left, right in _spans(w, tile[1], overlap)
    )


def square_tiles(h: int, w: int, side: int | None, overlap: int | None = None) -> tuple[Tile, ...]:
    """As ``plan_tiles`` with tiles of ``side`` a side; the whole picture for None or 0.

    ``overlap`` None shares nothing. Raises InputError as ``plan_tiles``.
    """
    if not side:
        return (Tile(0, h, 0, w),)
    return plan_tiles(h, w, (side, side), overlap or 0)


def tiles_of(x: Tensor, side: int | None, overlap: int | None = None) -> tuple[Tile, ...]:
    """``square_tiles`` of the picture ``x`` (..., h, w)."""
    h, w = x.shape[-2:]
    return square_tiles(h, w, side, overlap)


def _spans(side: int, length: int, overlap: int) -> list[tuple[int, int]]:
    """The tiles along one axis."""
    if side <= length:
        return [(0, side)]
    length = length // MULTIPLE * MULTIPLE
    step = (length - overlap) // MULTIPLE * MULTIPLE
    last = side - length
    return [(start, start + length) for start in (*range(0, last, step), last)]


def _shares(spans: Sequence[tuple[int, int]]) -> list[Tensor]:
    """What each tile along one axis contributes at its positions; all together 1 everywhere.

    Raised cosines over what neighbours share: their slope is 0 where a tile begins and ends, so
    nothing changes abruptly there.
    """

    def rise(n: int) -> Tensor:
        return (
            (torch.arange(n, dtype=torch.float64) + 0.5).mul(math.pi / 2 / max(n, 1)).sin().square()
        )

    total = torch.zeros(spans[-1][1], dtype=torch.float64)
    shares = []
    for i, (start, stop) in enumerate(spans):
        share = torch.ones(stop - start, dtype=torch.float64)
        before = spans[i - 1][1] - start if i > 0 else 0
        after = stop - spans[i + 1][0] if i + 1 < len(spans) else 0
        share[:before] *= rise(before)
        share[stop - start - after :] *= rise(after).flip(0)
        total[start:stop] += share
        shares.append(share)
    # Where the last tile was moved back, three may meet.
    return [
        (share / total[start:stop]).float()
        for share, (start, stop) in zip(shares, spans, strict=True)
    ]


class TileBlend:
    """Sums up tiles, weighted, as they come: ``add`` each once, then ``result``.

    Holds one picture in fp32, on the device of the first part.
    """

    def __init__(self, plan: Sequence[Tile]) -> None:
        """Raises InputError for a plan whose tiles are not rows and columns of a grid."""
        rows = sorted({(tile.top, tile.bottom) for tile in plan})
        columns = sorted({(tile.left, tile.right) for tile in plan})
        if len(set(plan)) != len(rows) * len(columns) or not plan:
            raise InputError(
                f"A plan of {len(plan)} tiles in {len(rows)} rows and {len(columns)} columns: "
                "expected every row to have the same columns. Make it with plan_tiles."
            )
        self.size = (rows[-1][1], columns[-1][1])
        self._rows = dict(zip(rows, _shares(rows), strict=True))
        self._columns = dict(zip(columns, _shares(columns), strict=True))
        self._missing = set(plan)
        self._total: Tensor | None = None
        self._dtype = torch.float32

    def add(self, tile: Tile, part: Tensor) -> None:
        """Add the result (..., h, w) of one tile.

        Raises InputError for a tile that is not in the plan or was added before, or a part that
        has another size than its tile.
        """
        rows, columns = (tile.top, tile.bottom), (tile.left, tile.right)
        if tile not in self._missing:
            raise InputError(f"{tile} is not in the plan, or was added before: add each once.")
        want = (tile.bottom - tile.top, tile.right - tile.left)
        if tuple(part.shape[-2:]) != want:
            raise InputError(
                f"The part of {tile} is {tuple(part.shape[-2:])}: expected {want}. For results "
                "larger than the tile, blend with a plan of tiles scaled likewise."
            )
        if self._total is None:
            self._dtype = part.dtype
            exact = torch.promote_types(part.dtype, torch.float32)
            shape = (*part.shape[:-2], *self.size)
            self._total = torch.zeros(shape, dtype=exact, device=part.device)
        weight = self._rows[rows][:, None] * self._columns[columns]
        tile.crop(self._total).addcmul_(part.to(self._total), weight.to(self._total))
        self._missing.remove(tile)

    def result(self) -> Tensor:
        """The picture (..., h, w) in the parts' dtype. Raises InputError if tiles are missing."""
        if self._total is None or self._missing:
            raise InputError(f"{len(self._missing)} tiles have not been added: add all first.")
        return self._total.to(self._dtype)


def tiled_predict(
    predict: Callable[..., Tensor],
    plan: Sequence[Tile],
    check_cancelled: Callable[[], None] = ignore,
) -> Callable[..., Tensor]:
    """``predict`` as a function that runs on one tile after the other and blends the results.

    Every argument, by place or by name, that is a tensor of four or more dims and ends in the
    planned picture's (h, w) is cropped; all others pass as they are. So a latent, frames and noise
    keep their places, and a text (b, tokens, dim) is left alone. The results must have the tile's
    size. ``check_cancelled()`` is called before each tile and may raise. A plan of one tile gives
    ``predict`` itself.
    """
    if len(plan) == 1:
        return predict
    size = TileBlend(plan).size

    def cropped(value: Any, tile: Tile) -> Any:
        if isinstance(value, Tensor) and value.ndim >= 4 and tuple(value.shape[-2:]) == size:
            return tile.crop(value)
        return value

    def predict_tiles(*args: Any, **kwargs: Any) -> Tensor:
        total = TileBlend(plan)
        for tile in plan:
            check_cancelled()
            places = [cropped(value, tile) for value in args]
            names = {name: cropped(value, tile) for name, value in kwargs.items()}
            total.add(tile, predict(*places, **names))
        return total.result()

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
    total = TileBlend([tile.scaled(UPSCALE) for tile in plan])
    want = tuple(side // UPSCALE for side in total.size)
    for name, x in (("latent", z), ("low-resolution frames", low_res)):
        if x is not None and tuple(x.shape[-2:]) != want:
            raise InputError(
                f"The {name} have (h, w) {tuple(x.shape[-2:])}, the plan of tiles is for {want}: "
                "expected the same. Plan the tiles for this latent."
            )
    if len(plan) == 1:
        check_cancelled()
        return vae.decode(z, low_res, w)
    for tile in plan:
        check_cancelled()
        frames = None if low_res is None else tile.crop(low_res)
        total.add(tile.scaled(UPSCALE), vae.decode(tile.crop(z), frames, w))
    return total.result()
