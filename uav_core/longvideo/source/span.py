"""A part of a video, by time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ...errors import InputError


@dataclass(frozen=True)
class Span:
    """From ``start`` on, for ``duration``, in seconds of the video's own clock; 0: to its end.

    Frames are chosen as ComfyUI chooses those of a trimmed VIDEO: the ones shown from ``start`` on
    and before ``start + duration``, both rounded down to a tick of the clock.
    """

    start: float = 0.0
    duration: float = 0.0

    def of(self, times: Sequence[int], time_base: Fraction) -> range:
        """The frames of a video with these times, in ticks of ``time_base`` seconds.

        Raises InputError if there are none.
        """
        first = bisect_left(times, int(self.start / time_base))
        stop = len(times)
        if self.duration:
            stop = bisect_left(times, int((self.start + self.duration) / time_base))
        if first >= stop:
            seconds = float((times[-1] - times[0]) * time_base)
            raise InputError(
                f"The video is trimmed to {self.duration:g} s from {self.start:g} s on, where it "
                f"has no frame: it has {len(times)} frames in {seconds:.3g} s. Trim it less."
            )
        return range(first, stop)


def frames_of_span(span: Span | None, times: Sequence[int], time_base: Fraction) -> range:
    """The frames of a span, or all of them."""
    return range(len(times)) if span is None else span.of(times, time_base)


def seconds_of(frames: range, times: Sequence[int], time_base: Fraction) -> list[float]:
    """When frames are shown: by the file's clock, or from 0 on where they begin inside the file.

    So times of cuts mean the same wherever they are shown or asked for.
    """
    begin = times[frames.start] if frames.start else 0
    return [float((times[i] - begin) * time_base) for i in frames]
