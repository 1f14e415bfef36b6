"""Where the times of a file begin again or jump, and what puts them onto one clock.

A recording may be several ones that were joined, each with its own clock, or the clock may leap.
Players go on without a gap, and so do the times here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.packet import Packet

# All in seconds, but for numbers of packets.
_BACK = 0.1
"""By how much times may step back within a run: muxers round, and packets may be damaged."""
_BACK_UNORDERED = 1.0
"""By how much presentation times may, which do not follow the order of packets."""
_STRAY_PACKETS = 3
"""A run of at most so many packets is a mistake if the run after it goes on from the one before."""
_STRAY_GAP = 2.0
"""The longest gap over which it still goes on."""
_FITS = 1.0
"""How far outside of a segment a time may lie and still fit it."""

LONGEST_PACKET = 1.0
"""What a packet lasts at most: MP4 gives the one before a leap all the time up to the next."""
AHEAD_BROKEN = 10.0
"""A leap ahead that begins a new run of the picture, in a format that allows clocks to break."""
AHEAD = 300.0
"""The same in other formats, where a still picture may stand for long."""
AHEAD_SOUND = 0.1
"""The same for sound."""


@dataclass
class Run:
    """Packets of one stream whose times go on from each other; in seconds of the file."""

    first: int
    """Number of its first packet in the stream."""
    place: int
    """Number of that packet among those of all streams."""
    start: float
    stop: float
    stray: bool = False


class Track:
    """The runs of one stream, gathered while its packets are read.

    Args:
        time_base: of the stream.
        ahead: by how many seconds time leaps where a new run begins; None: at every packet.
    """

    def __init__(self, time_base: Fraction, ahead: float | None) -> None:
        self._base, self._ahead = float(time_base), ahead
        self.runs: list[Run] = []
        self.count = 0
        self._last, self._ordered = 0.0, False

    def add(self, packet: Packet, place: int) -> None:
        """The next packet, the ``place``-th of the file."""
        number, self.count = self.count, self.count + 1
        ticks = packet.pts if packet.dts is None else packet.dts
        if ticks is None:
            return
        time = ticks * self._base
        ordered, self._ordered = self._ordered, packet.dts is not None
        back = _BACK if ordered and self._ordered else _BACK_UNORDERED
        run = self.runs[-1] if self.runs else None
        if (
            run is None
            or self._ahead is None
            or time < self._last - back
            or time > run.stop + self._ahead
        ):
            run = Run(number, place, time, time)
            self.runs.append(run)
        lasts = min((packet.duration or 0) * self._base, LONGEST_PACKET)
        run.stop = max(run.stop, time + lasts)
        self._last = time

    def mark_strays(self) -> None:
        """Find the runs that are mistakes."""
        for before, run, after in zip(self.runs, self.runs[1:], self.runs[2:], strict=False):
            few = after.first - run.first <= _STRAY_PACKETS
            if few and not before.stray and -_BACK <= after.start - before.stop <= _STRAY_GAP:
                run.stray = True


@dataclass
class Segment:
    """A stretch of the file with one clock, as its picture shows it."""

    place: int
    start: float
    stop: float
    shift: Fraction = Fraction(0)
    """Seconds to add to the file's times."""
    begin: Fraction | None = None
    """When its first picture is shown, in seconds of the one clock; None: it is the first."""

    def misfit(self, time: float) -> float:
        """By how many seconds a time of the file lies outside."""
        outside = max(self.start - time, time - self.stop) - _FITS
        return max(0.0, outside)


def find_segments(video: Track, sound: Sequence[Track]) -> tuple[list[Segment], list[int]]:
    """The segments of a file, and of every run of its picture the segment; -1: a stray run.

    A leap ahead begins none where the sound goes on meanwhile: a still picture is shown.
    """
    segments: list[Segment] = []
    of_run: list[int] = []
    after_stray = False
    for run in video.runs:
        if run.stray:
            of_run.append(-1)
        elif segments and (after_stray or _covered(segments[-1], run, sound)):
            segments[-1].stop = max(segments[-1].stop, run.stop)
            of_run.append(len(segments) - 1)
        else:
            segments.append(Segment(run.place, run.start, run.stop))
            of_run.append(len(segments) - 1)
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
    """What puts packets of a stream, from number ``first`` on, onto the one clock; in seconds.

    Those whose middle is before ``begin`` or not before ``end`` belong to nothing shown.
    """

    first: int
    seconds: Fraction
    begin: Fraction | None = None
    end: Fraction | None = None


def shifts_of(track: Track, segments: Sequence[Segment], *, ordered: bool) -> list[Shift]:
    """The shifts of a stream beside the picture.

    ``ordered``: its packets follow each other without overlap, as sound does and subtitles do
    not.
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
            if choice:
                found = min(choice, key=lambda i: (segments[i].misfit(run.start), abs(i - here)))
            else:
                found = at
            at = found if ordered else 0
            end = segments[found + 1].begin if found + 1 < len(segments) else None
            shifts.append(Shift(run.first, segments[found].shift, segments[found].begin, end))
        before = run
    return shifts
