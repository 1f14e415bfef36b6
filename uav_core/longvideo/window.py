"""The low-resolution frames that a stream needs at the moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from ..stream.frames import HeldFrames
from ..video import VideoReader


class Window:
    """Frames of one scene of a video, read once, in order, and dropped when done with.

    Numbers count from the scene's first frame.
    """

    def __init__(
        self,
        path: str,
        scene: range,
        first: int,
        times: Sequence[int],
        check_cancelled: Callable[[], None],
        resize: Callable[[Tensor], Tensor],
    ) -> None:
        """``scene`` counts from the source's first frame, as ``times`` do.

        ``first`` is the first frame that will be asked for; ``resize`` makes of a frame (3, h, w)
        of the file the one that is kept.
        """
        self._held = HeldFrames(first)
        self._reader = VideoReader(
            path, scene.start + first, scene.stop, times=times, check_cancelled=check_cancelled
        )
        self._frames: Iterator[Tensor] = map(resize, self._reader)

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
