"""Telecined film: the pictures of a film take three and two fields of the video in turn.

So four pictures of the film become five of the video. Which of five is left out is decided from
those five alone, so that a range gives the same frames as reading from the beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import av
import numpy as np

from .deinterlace import Pictures
from .times import FrameTimes

CYCLE, KEPT = 5, 4
# Pictures before and after a cycle on which its pictures depend.
_BEFORE, _AFTER = 3, 2
# A picture repeats the one before if its change is less than this share of the next smallest.
_REPEATED = 0.6
# Size of the blocks in which pictures are compared: the block that differs most counts.
_ROWS, _COLUMNS = 16, 32


def film_times(pictures: FrameTimes) -> FrameTimes:
    """Presentation times of the film's pictures: four, evenly spaced, in the time of five.

    The unit is a quarter of the file's, so that every time is exact.
    """
    cycles = len(pictures) // CYCLE
    times: list[int] = []
    for cycle in range(cycles):
        start = pictures[cycle * CYCLE]
        if (cycle + 1) * CYCLE < len(pictures):
            stop = pictures[(cycle + 1) * CYCLE]
        else:  # the end of the last cycle is estimated from its pictures
            stop = start + round((pictures[-1] - start) * CYCLE / KEPT)
        times += [start * KEPT + i * (stop - start) for i in range(KEPT)]
    times += [time * KEPT for time in pictures[cycles * CYCLE :]]
    result = FrameTimes(
        times,
        (),
        time_base=pictures.time_base / KEPT,
        segments=pictures.segments,
        shifts=pictures.shifts,
        notes=pictures.notes,
    )
    result.found_lost, result.found_wrong = pictures.found_lost, pictures.found_wrong
    result.pictures = pictures
    return result


def pictures_needed(frames: range, count: int) -> range:
    """The pictures of a video of ``count`` from which these frames of the film are made."""
    first = min(frames.start // KEPT, count // CYCLE) * CYCLE
    stop = ((frames.stop - 1) // KEPT + 1) * CYCLE
    return range(max(first - _BEFORE, 0), min(stop + _AFTER, count))


def film(pictures: Pictures, count: int) -> Pictures:
    """Turn (number, picture) of the video into (frame, picture) of the film: four of every five.

    Args:
        pictures: whole cycles, after ``deinterlaced``; the first pictures may be missing.
        count: pictures in the video; its last cycle may be incomplete.
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
                least = 0  # the first picture's change is unknown, and none of the others repeats
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
    plane = picture.planes[0]  # used directly, which is much faster
    lines = np.frombuffer(memoryview(plane), np.uint8, plane.height * plane.line_size)  # pyright: ignore[reportArgumentType]
    return lines.reshape(plane.height, -1)[:, : plane.width].astype(np.int16)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The difference of two pictures in the block where it is largest; infinite for other sizes."""
    if a.shape != b.shape:
        return float("inf")
    rows, columns = (max(side // n, 1) for side, n in zip(a.shape, (_ROWS, _COLUMNS), strict=True))
    h, w = a.shape[0] // rows, a.shape[1] // columns
    change = np.abs(a - b)[: rows * h, : columns * w]
    lines = change.reshape(rows, h, columns * w).sum(1, dtype=np.int32)
    return float(lines.reshape(rows, columns, w).mean(2).max() / h)


def repeated_fields(pictures: Iterable[np.ndarray]) -> float | None:
    """The share of cycles of five in which fields repeat as in telecined film.

    There the upper lines repeat once in five pictures, and the lower lines two or three pictures
    later. None if there is too little motion to tell.
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
