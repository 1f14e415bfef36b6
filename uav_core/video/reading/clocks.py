"""Finds where the times of a file begin again or leap, and puts them on one clock.

A file may consist of several joined recordings, each with its own clock, or its clock may leap.
Players go on without a gap, and so do the times here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet

# All values are in seconds, except numbers of packets.
_BACK = 0.1
"""How far times may step back within a run: muxers round, and packets may be damaged."""
_BACK_UNORDERED = 1.0
"""How far presentation times may step back, as they do not follow the order of packets."""
_REORDERED = 16
"""The same in pictures, which counts where they are slow: the most that a codec reorders."""
_STRAY_PACKETS = 3
"""A run of at most so many packets is a mistake if the next run continues the previous one."""
_STRAY_GAP = 2.0
"""The longest gap between two runs of which one continues the other."""
_FITS = 1.0
"""How far outside of a segment a time may be and still fit it."""

LONGEST_PACKET = 1.0
"""Longest duration of a packet: in MP4 the packet before a leap lasts until the next one."""
AHEAD_BROKEN = 10.0
"""A leap ahead that begins a new run of video, in formats that allow the clock to break."""
AHEAD = 300.0
"""A leap ahead that begins a new run of video in other formats: a still picture may be long."""
AHEAD_SOUND = 0.1
"""A leap ahead that begins a new run of sound."""


@dataclass
class Run:
    """Packets of one stream with continuous times, in seconds of the file."""

    first: int
    """Number of its first packet in the stream."""
    place: int
    """Number of that packet among the packets of all streams."""
    start: float
    stop: float
    stray: bool = False


class Track:
    """The runs of one stream, collected while its packets are read.

    Args:
        time_base: the stream's.
        ahead: a leap ahead of more seconds begins a new run; None: every packet begins one.
    """

    def __init__(self, time_base: Fraction, ahead: float | None) -> None:
        self._base, self._ahead = float(time_base), ahead
        self.runs: list[Run] = []
        self.count = 0
        self.end = 0.0
        """The latest end of a packet, in seconds of the file, by the times of decoding."""
        self._last, self._ordered = 0.0, False

    def add(self, packet: Packet, place: int) -> None:
        """Add the next packet; ``place`` is its number in the file."""
        number, self.count = self.count, self.count + 1
        ticks = packet.pts if packet.dts is None else packet.dts
        if ticks is None:
            return
        time = ticks * self._base
        lasts = (packet.duration or 0) * self._base
        self.end = max(self.end, time + lasts)
        ordered, self._ordered = self._ordered, packet.dts is not None
        back = _BACK if ordered and self._ordered else max(_BACK_UNORDERED, _REORDERED * lasts)
        run = self.runs[-1] if self.runs else None
        if (
            run is None
            or self._ahead is None
            or time < self._last - back
            or time > run.stop + self._ahead
        ):
            run = Run(number, place, time, time)
            self.runs.append(run)
        run.stop = max(run.stop, time + min(lasts, LONGEST_PACKET))
        self._last = time

    def mark_strays(self) -> None:
        """Mark the runs whose times are mistakes as stray."""
        for before, run, after in zip(self.runs, self.runs[1:], self.runs[2:], strict=False):
            few = after.first - run.first <= _STRAY_PACKETS
            if few and not before.stray and -_BACK <= after.start - before.stop <= _STRAY_GAP:
                run.stray = True


@dataclass
class Segment:
    """A range of the file with one clock, according to its video packets."""

    place: int
    start: float
    stop: float
    shift: Fraction = Fraction(0)
    """Seconds to add to the file's times."""
    begin: Fraction | None = None
    """Time of its first picture, in seconds of the one clock; None for the first segment."""

    def misfit(self, time: float) -> float:
        """How many seconds a time of the file is outside of the segment; 0 if it fits."""
        outside = max(self.start - time, time - self.stop) - _FITS
        return max(0.0, outside)


def find_segments(video: Track, sound: Sequence[Track]) -> tuple[list[Segment], list[int]]:
    """The segments of a file, and for every run of video its segment; -1 for a stray run.

    A leap ahead begins no segment if the sound goes on meanwhile: then a still picture is shown.
    """
    segments: list[Segment] = []
    of_run: list[int] = []
    after_stray = False
    for run in video.runs:
        if not run.stray:
            if not segments or not (after_stray or _covered(segments[-1], run, sound)):
                segments.append(Segment(run.place, run.start, run.stop))
            segments[-1].stop = max(segments[-1].stop, run.stop)
        of_run.append(-1 if run.stray else len(segments) - 1)
        after_stray = run.stray
    return segments or [Segment(0, 0.0, 0.0)], of_run


def _covered(segment: Segment, run: Run, sound: Sequence[Track]) -> bool:
    """Whether sound goes on for more than half of the time from the segment to the run."""
    gap, heard = run.start - segment.stop, 0.0
    for track in sound:
        until = [later.place for later in track.runs[1:]] + [run.place + 1]
        beside = [
            r
            for r, end in zip(track.runs, until, strict=False)
            if r.place < run.place and end > segment.place
        ]
        part = sum(max(0.0, min(r.stop, run.start) - max(r.start, segment.stop)) for r in beside)
        heard = max(heard, part)
    return gap > 0 and heard > gap / 2


@dataclass(frozen=True)
class Shift:
    """The shift of packets of a stream, from number ``first`` on, to the one clock; in seconds.

    Packets whose middle is before ``begin`` or not before ``end`` belong to no shown picture.
    """

    first: int
    seconds: Fraction
    begin: Fraction | None = None
    end: Fraction | None = None


def shifts_of(track: Track, segments: Sequence[Segment], *, ordered: bool) -> list[Shift]:
    """The shifts of a stream of sound or subtitles.

    ``ordered``: its packets follow each other without overlap, as in sound but not in subtitles.
    """
    shifts: list[Shift] = []
    places = [segment.place for segment in segments]
    at, before = 0, None
    for run in track.runs:
        here = max(0, bisect_right(places, run.place) - 1)
        back = ordered and before is not None and run.start < before.stop - _BACK
        choice = [i for i in (here, here + 1, here - 1) if i < len(segments) and i >= at + back]
        if run.stray or (back and not choice):
            assert before is not None
            last = shifts[-1]
            seconds = last.seconds + Fraction(before.stop - run.start).limit_denominator(10**6)
            shifts.append(Shift(run.first, seconds, last.begin, last.end))
            if run.stray:
                continue
        else:
            found = min(
                choice, key=lambda i: (segments[i].misfit(run.start), abs(i - here)), default=at
            )
            at = found if ordered else 0
            end = segments[found + 1].begin if found + 1 < len(segments) else None
            shifts.append(Shift(run.first, segments[found].shift, segments[found].begin, end))
        before = run
    return shifts
