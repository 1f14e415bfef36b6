"""Times of pictures in the decoder's order: the file's times, as far as they fit that order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import median

# If more than this share of the times contradict the order, they are no presentation times.
_CONTRADICTIONS = 0.25
# Distances in usual steps: below _CROWDED times are spread, above _GAP the file means a gap.
_CROWDED, _GAP = 0.95, 1.5
_REACH = 32
"""Frames on each side over which crowded times may be spread."""
_ROOM = 0.6
"""Least distance of a lost picture from others, in steps, to count as a missing frame."""


def usual_step(values: Sequence[int | None], nominal: int) -> int:
    """The median distance of neighbouring times; ``nominal`` if there are too few."""
    steps = [b - a for a, b in pairwise(values) if a is not None and b is not None and b > a]
    return max(1, round(median(steps))) if len(steps) > 2 else nominal


def best_times(shown: Sequence[int | None], decoded: Sequence[int | None], step: int) -> list[int]:
    """The most credible time of every picture; rising.

    Args:
        shown: presentation times as in the file, in the order of the pictures.
        decoded: decoding times, in the same way.
        step: the usual distance.
    """
    known = [t for t in shown if t is not None]
    wrong = sum(t < top for t, top in zip(known, accumulate(known, max), strict=True))
    few = 2 * len(known) < len(shown)
    if (few or wrong > _CONTRADICTIONS * len(known)) and sum(t is not None for t in decoded) >= max(
        len(known), 1
    ):
        # The presentation times are useless. There are enough decoding times, which are used.
        shown, known = decoded, [t for t in decoded if t is not None]
    # Of several pictures with one time, the first keeps it.
    rising = [t if t != before else None for before, t in pairwise([None, *sorted(known)])]
    in_order = iter(rising)
    return _filled([None if t is None else next(in_order) for t in shown], step)


def _filled(given: Sequence[int | None], step: int) -> list[int]:
    """Give pictures without a time one between their neighbours, which are moved if necessary."""
    times = {i: t for i, t in enumerate(given) if t is not None}
    known, count = list(times), len(given)
    if not known:
        return [i * step for i in range(count)]
    for i in reversed(range(known[0])):
        times[i] = times[i + 1] - step
    for i in range(known[-1] + 1, count):
        times[i] = times[i - 1] + step
    for a, b in pairwise(known):
        if b == a + 1:
            continue
        low, high = _window(times, a, b, step)
        if known[-1] - b <= _REACH and _room(times, low, high) < _CROWDED * step:
            # So near to the end all later times may be moved.
            for i in range(a + 1, count):
                times[i] = times[i - 1] + step
            break
        # Evenly spaced; before a gap they keep the usual distance.
        room = _room(times, low, high)
        each = step if room > _GAP * step else room
        for i in range(low + 1, high):
            times[i] = times[low] + round((i - low) * each)
    return [times[i] for i in range(count)]


def _room(times: Mapping[int, int], low: int, high: int) -> float:
    """The average distance of the pictures from ``low`` to ``high``."""
    return (times[high] - times[low]) / (high - low)


def _window(times: Mapping[int, int], a: int, b: int, step: int) -> tuple[int, int]:
    """The nearest known times around ``a`` and ``b`` that leave enough room between them."""

    def room(ends: tuple[int, int]) -> float:
        return _room(times, *ends)

    earlier = [i for i in range(a - _REACH, a) if i in times]
    later = [i for i in range(b + 1, b + _REACH + 1) if i in times]
    ends = best = (a, b)
    while room(best) < _CROWDED * step and (earlier or later):
        wider = [(earlier[-1], ends[1])] if earlier else []
        wider += [(ends[0], later[0])] if later else []
        ends = max(wider, key=room)
        earlier = [i for i in earlier if i < ends[0]]
        later = [i for i in later if i > ends[1]]
        best = max(best, ends, key=room)
    return best


def places_of_lost(times: Sequence[int], lost: Sequence[int], step: int) -> list[int]:
    """The times in ``lost``, of undecoded packets, at which a picture is missing; rising.

    Not every packet is a missing picture: some have a second field or a hidden picture.
    """
    full, found = list(times), []
    for time in sorted(lost):
        i = bisect_left(full, time)
        before = i == 0 or time - full[i - 1] < _ROOM * step
        after = i < len(full) and full[i] - time < _ROOM * step
        if i and not before and not after:
            full.insert(i, time)
            found.append(time)
    return found
