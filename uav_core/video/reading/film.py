"""Telecined film: every second picture of a film has three fields of the video, the others two.

Four pictures of the film so lie in five of the video. Which of five is left out is decided from
those five alone, so that a range gives the very frames that reading from the beginning gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import av
import numpy as np

from .deinterlace import Pictures
from .times import FrameTimes

CYCLE, KEPT = 5, 4
# Pictures on either side of a cycle that its own depend on.
_BEFORE, _AFTER = 3, 2
# A picture repeats the one before if it differs from it by less than this share of the others.
_REPEATED = 0.6
# A block of pixels, in which a picture differs if it does anywhere.
_ROWS, _COLUMNS = 16, 32


class FilmTimes(FrameTimes):
    """When the pictures of the film are shown: four in the time of five, evenly.

    In a unit a quarter of the file's, which holds every one exactly.
    """

    def __init__(self, pictures: FrameTimes) -> None:
        cycles = len(pictures) // CYCLE
        times: list[int] = []
        for cycle in range(cycles):
            start = pictures[cycle * CYCLE]
            if (cycle + 1) * CYCLE < len(pictures):
                stop = pictures[(cycle + 1) * CYCLE]
            else:  # the last, which lasts as long as it seems to
                stop = start + round((pictures[-1] - start) * CYCLE / KEPT)
            times += [start * KEPT + i * (stop - start) for i in range(KEPT)]
        times += [time * KEPT for time in pictures[cycles * CYCLE :]]
        super().__init__(
            times,
            (),
            time_base=pictures.time_base / KEPT,
            segments=pictures.segments,
            shifts=pictures.shifts,
            notes=pictures.notes,
        )
        self.found_lost, self.found_wrong = pictures.found_lost, pictures.found_wrong
        self._of_file = pictures

    @property
    def pictures(self) -> FrameTimes:
        """The times of the file's own pictures."""
        return self._of_file


def pictures_needed(frames: range, count: int) -> range:
    """The pictures of the video, of ``count``, that these frames of the film are made of."""
    first = min(frames.start // KEPT, count // CYCLE) * CYCLE
    stop = ((frames.stop - 1) // KEPT + 1) * CYCLE
    return range(max(first - _BEFORE, 0), min(stop + _AFTER, count))


def film(pictures: Pictures, count: int) -> Pictures:
    """(frame of the film, picture) of (number, picture), of which the film has four of five.

    Args:
        pictures: of whole cycles, after ``deinterlaced``; the first ones may lack.
        count: of the video, whose last cycle may lack some.
    """
    before, cycle = None, []
    whole = count // CYCLE * CYCLE
    for number, picture in pictures:
        if number >= whole:
            yield number // CYCLE * KEPT + number % CYCLE, picture
            continue
        gray = luma(picture)
        if number % CYCLE == 0:
            cycle = []
        if cycle or number % CYCLE == 0:
            cycle.append((picture, float("inf") if before is None else difference(gray, before)))
        before = gray
        if len(cycle) == CYCLE:
            changes = [change for _, change in cycle]
            least = int(np.argmin(changes))
            if changes[0] == float("inf") and repeats(changes[1:]) is None:
                least = 0  # of the first of all it is not known; none of the others is one
            four = (shown for i, (shown, _) in enumerate(cycle) if i != least)
            yield from enumerate(four, start=number // CYCLE * KEPT)


def repeats(changes: Sequence[float]) -> int | None:
    """The number of the picture that clearly repeats the one before it; None if none does."""
    least, second = np.argsort(changes, kind="stable")[:2]
    return int(least) if changes[least] < _REPEATED * changes[second] else None


def luma(picture: av.VideoFrame) -> np.ndarray:
    """The brightness of a picture, (h, w), in 8 bits."""
    form = picture.format
    if form.is_rgb or not form.is_planar or form.components[0].bits != 8:
        return picture.to_ndarray(format="gray").astype(np.int16)
    plane = picture.planes[0]  # as it is, which is far quicker
    lines = np.frombuffer(memoryview(plane), np.uint8, plane.height * plane.line_size)  # pyright: ignore[reportArgumentType]
    return lines.reshape(plane.height, -1)[:, : plane.width].astype(np.int16)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """How much two pictures differ where they differ most; infinite if in size."""
    if a.shape != b.shape:
        return float("inf")
    rows, columns = (max(side // n, 1) for side, n in zip(a.shape, (_ROWS, _COLUMNS), strict=True))
    h, w = a.shape[0] // rows, a.shape[1] // columns
    change = np.abs(a - b)[: rows * h, : columns * w]
    lines = change.reshape(rows, h, columns * w).sum(1, dtype=np.int32)
    return float(lines.reshape(rows, columns, w).mean(2).max() / h)


def repeated_fields(pictures: Iterable[np.ndarray]) -> float | None:
    """The share of cycles of five in which fields repeat as in telecined film.

    The upper lines repeat once in five pictures, and the lower ones two or three later. None
    if too little moves to tell.
    """
    changes = [
        [difference(a[lines::2], b[lines::2]) for lines in (0, 1)] for a, b in pairwise(pictures)
    ]
    pairs = []
    for i in range(0, len(changes) - CYCLE + 1, CYCLE):
        upper, lower = zip(*changes[i : i + CYCLE], strict=True)
        pairs.append((repeats(upper), repeats(lower)))
    if len(pairs) < 2:
        return None
    both = [(b - a) % CYCLE for a, b in pairs if a is not None and b is not None]
    clear = sum(distance in (2, 3) for distance in both)
    return clear / len(pairs) if clear else None
