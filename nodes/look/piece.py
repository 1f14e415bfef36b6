"""A piece of a clip: some of its frames, and a part of their area."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.longvideo.source import frames_of_span
from ...uav_core.sampling.noise import frame_noise
from ...uav_core.video import Footage
from ..base.inputs import MIN_SIDE, checked_frames
from ..base.runtime import check_cancelled
from ..longvideo.video_file import video_file


@dataclass(frozen=True)
class Piece:
    """A range of frames and an area of them, in a clip of ``frames`` frames of (h, w)."""

    frames: int
    h: int
    w: int
    times: range
    rows: slice
    columns: slice

    @classmethod
    def of(
        cls,
        clip: tuple[int, int, int],
        first: int,
        count: int,
        x: int,
        y: int,
        width: int,
        height: int,
    ) -> Piece:
        """``count`` frames from ``first`` on, cropped to ``width`` x ``height`` at (x, y).

        A piece is cut off at the clip's end and edges; a width or height of 0 reaches to the edge.
        Raises InputError for a piece that begins outside the clip or is too small.
        """
        frames, h, w = clip
        if not 0 <= first < frames or count < 1:
            raise InputError(
                f"{count} frames from frame {first}: expected at least one, in a clip with frames "
                f"0 to {frames - 1}. Choose an earlier first frame."
            )
        right, bottom = (
            min(side, start + (length or side))
            for side, start, length in ((w, x, width), (h, y, height))
        )
        if min(right - x, bottom - y) < MIN_SIDE:
            raise InputError(
                f"The crop from ({x}, {y}) to ({right}, {bottom}) of frames of {w}x{h} is too "
                f"small: expected at least {MIN_SIDE} px on each side, inside the frames."
            )
        times = range(first, min(frames, first + count))
        return cls(frames, h, w, times, slice(y, bottom), slice(x, right))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the area."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def noise(self, seed: int, stream: str, channels: int) -> Tensor:
        """This piece of the whole clip's noise, (1, channels, t, h, w)."""
        parts = [
            frame_noise(seed, stream, [i], channels, self.h, self.w)[
                ..., self.rows, self.columns
            ].clone()
            for i in self.times
        ]
        return torch.cat(parts, dim=2)


def read_piece(clip: Any, *choice: int) -> tuple[Tensor, Piece]:
    """The chosen piece of an IMAGE or a VIDEO as IMAGE (t, h, w, 3); ``choice`` as in Piece.of.

    Of a video only these frames are read. Raises InputError for other inputs, and as Piece.of.
    """
    if isinstance(clip, Tensor):
        clip = checked_frames(clip)
        t, h, w, _ = clip.shape
        piece = Piece.of((t, h, w), *choice)
        return clip[piece.times.start : piece.times.stop, piece.rows, piece.columns], piece
    with video_file(clip) as (path, span):
        footage = Footage.open(path, check_cancelled=check_cancelled)
        meant = frames_of_span(span, footage.times)
        info = footage.info
        piece = Piece.of((len(meant), info.height, info.width), *choice)
        chosen = meant[piece.times.start : piece.times.stop]
        with footage.reader(chosen, check_cancelled=check_cancelled) as reader:
            frames = [frame[:, piece.rows, piece.columns].clone() for frame in reader]
    return torch.stack(frames).movedim(1, -1).add(1).div(2), piece
