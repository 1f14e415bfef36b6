"""The low-resolution frames that a stream needs at the moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from ...sampling.stream.frames import HeldFrames
from ...video import VideoReader


class Window:
    """Frames of one scene of a video, read once, in order, and dropped when done with.

    Numbers count from the scene's first frame.
    """

    def __init__(self, reader: VideoReader, first: int, resize: Callable[[Tensor], Tensor]) -> None:
        """``reader`` begins with frame ``first``; ``resize`` makes of (3, h, w) what is kept."""
        self._held = HeldFrames(first)
        self._reader = reader
        self._frames: Iterator[Tensor] = map(resize, reader)

    @property
    def stop(self) -> int:
        """The frame that is read next."""
        return self._held.stop

    def frames(self, start: int, stop: int) -> Tensor:
        """(1, 3, stop - start, h, w) in [-1, 1]."""
        while self._held.stop < stop:
            self._held.append([next(self._frames)[None]])
        return self._held.stack(start, stop)

    def drop(self, stop: int) -> None:
        """Frames before ``stop`` are not asked for again."""
        self._held.drop(stop)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
