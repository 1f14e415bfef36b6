"""Which pictures a video file has, and the presentation time of each."""

from __future__ import annotations

import logging
import os
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise

import av
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from ...callbacks import ignore
from ..errors import UnreadableVideoError
from .clocks import (
    AHEAD,
    AHEAD_BROKEN,
    AHEAD_SOUND,
    LONGEST_PACKET,
    Segment,
    Shift,
    Track,
    find_segments,
    shifts_of,
)
from .ordering import best_times, places_of_lost, usual_step
from .packets import Damaged, Decoder, packets
from .probe import Path, open_video

log = logging.getLogger(__name__)

# Codecs whose packets may contain pictures that are never shown.
_HIDDEN_PICTURES = ("vp8", "vp6", "vp6f", "vp7")
_REPEATED = -1
"""In place of a packet's number: the picture is lost, and the one before is repeated."""
_ENDS = 4096
"""Bytes at each end of a packet that identify it."""
# Least frames of a piece of a damaged file.
_PIECE = 50
# Seconds, share of the length, and pictures by which a file may be shorter than it says without a
# note. Pictures are decoded by some earlier than they are shown.
_SHORT, _SHORT_SHARE, _SHORT_PICTURES = 0.25, 0.02, 5


@dataclass(frozen=True)
class Entry:
    """A packet from which decoding can begin."""

    number: int
    frame: int
    """The frame of its picture."""
    target: int
    """The position to seek: a byte of the file if ``FrameTimes.by_bytes``, else a time."""
    mark: tuple[int, int]


class FrameTimes(list[int]):
    """The presentation time of every frame, in the stream's time base, rising.

    All times are on one clock, even if the file's times begin again, leap, contradict the order of
    the pictures or are missing: they are the best estimate from the file, checked against the
    order in which the decoder returns the pictures. Also has the data to find the frames again
    (``VideoReader``) and to put sound and subtitles on the same clock (``join``).
    """

    def __init__(
        self,
        times: Sequence[int],
        numbers: Sequence[int],
        *,
        time_base: Fraction = Fraction(1),
        by_bytes: bool = False,
        segments: Sequence[Segment] = (),
        shifts: dict[int, list[Shift]] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(times)
        self.numbers = array("q", numbers)
        """The packet of each frame's picture; -1: it is lost, and the one before is repeated."""
        self.entries: list[Entry] = []
        """Packets from which decoding can begin, rising by frame."""
        self.by_bytes = by_bytes
        self.notes = list(notes)
        """Notes for the user on the file, as far as known before it is read."""
        self.damaged = False
        """Whether decoding met damage. Readers set this too, and fill the found_ sets below."""
        self.wrong: set[int] = set()
        """Frames shown with errors that ``notes`` already tell of."""
        self.found_lost: set[int] = set()
        """Further frames that readers could not decode, besides those that are ``lost``."""
        self.found_wrong: set[int] = set()
        """Further frames that were decoded with errors, besides ``wrong``."""
        self.time_base = time_base
        """Seconds per unit."""
        self.end: int | None = None
        """When the last frame ends; None if the file does not say."""
        self.segments, self.shifts = list(segments), shifts or {}
        self.pictures: FrameTimes = self
        """The times of the file's own pictures, from which the frames are made."""

    @cached_property
    def _frame_of(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for frame, number in enumerate(self.numbers):
            found.setdefault(number, frame)
        return found

    def frame_of(self, number: int, again: int = 0) -> int | None:
        """The frame of picture ``again`` (from 0) of a packet; None if it is not shown."""
        frame = self._frame_of.get(number)
        if frame is None or number == _REPEATED:
            return None
        frame += again
        return frame if frame < len(self) and self.numbers[frame] == number else None

    def lost(self, frame: int) -> bool:
        """Whether it is known that the picture cannot be decoded."""
        return self.numbers[frame] == _REPEATED

    def damage(self) -> list[str]:
        """Notes on damage that reading has found, in addition to ``notes``."""
        return _damage(len(self.found_lost), len(self.found_wrong))

    def entries_before(self, frame: int) -> list[Entry]:
        """Entries from which decoding may begin to get this frame whole; the nearest first."""
        last = bisect_right(self.entries, frame, key=lambda entry: entry.frame)
        return self.entries[:last][::-1]

    def pieces(self) -> list[Entry]:
        """Entries between which a damaged file is decoded piece by piece."""
        found: list[Entry] = []
        for entry in self.entries:
            if not found or entry.frame >= found[-1].frame + _PIECE:
                found.append(entry)
        return found

    def packets(self, container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet]:
        """Packets of sound and subtitles, with times on the clock of the frames."""
        counts = dict.fromkeys((stream.index for stream in streams), 0)
        for packet in packets(container, streams):
            index = packet.stream.index
            number, counts[index] = counts[index], counts[index] + 1
            shift = self._shift(index, number)
            if shift is None or _moved(packet, shift):
                yield packet

    def _shift(self, index: int, number: int) -> Shift | None:
        shifts = self.shifts.get(index)
        if not shifts:
            return None
        return shifts[max(0, bisect_right(shifts, number, key=lambda s: s.first) - 1)]

    def moved_start(self, index: int, seconds: Fraction) -> Fraction:
        """The time at which a stream of sound starts, on the clock of the frames."""
        shift = self._shift(index, 0)
        return seconds if shift is None else seconds + shift.seconds

    def on_clock(self, seconds: Fraction) -> Fraction:
        """A time of the file, such as a chapter's, on the clock of the frames; in seconds."""
        if len(self.segments) < 2:
            return seconds
        i = min(range(len(self.segments)), key=lambda i: self.segments[i].misfit(float(seconds)))
        moved = seconds + self.segments[i].shift
        after = self.segments[i + 1].begin if i + 1 < len(self.segments) else None
        return moved if after is None else min(moved, after)


def _moved(packet: Packet, shift: Shift) -> bool:
    """Put a packet on the clock; False if it belongs to no shown picture."""
    base = Fraction(packet.time_base)
    if packet.pts is None:
        packet.pts = packet.dts
    if packet.pts is None:
        return True
    if packet.stream.type == "audio" and (packet.duration or 0) * base > LONGEST_PACKET:
        packet.duration = round(LONGEST_PACKET / base)
    ticks = round(shift.seconds / base)
    packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
    middle = (packet.pts + Fraction(packet.duration or 0) / 2) * base
    return not (
        (shift.begin is not None and middle < shift.begin)
        or (shift.end is not None and middle >= shift.end)
    )


def frame_times(path: Path, *, check_cancelled: Callable[[], None] = ignore) -> FrameTimes:
    """The presentation time of every frame, and the data to find the frame.

    Nothing is decoded if the packets alone tell the times. They do not for an unusual file: times
    that are missing, begin again, leap, or rise in decoding order though the codec reorders its
    pictures; damage; fields or hidden pictures; a beginning inside a group of pictures. Then the
    frames are the decoder's pictures, in its order. A lost picture keeps its place if the file has
    a gap there. Pictures that an edit list hides are left out, and so is the incomplete last
    picture of a cut-off file. Warnings say what was found.

    Raises UnreadableVideoError as ``probe`` does.
    """
    name = os.fspath(path)
    with open_video(path) as (container, stream):
        scan = _Scan(container, stream, check_cancelled)
    times = scan.in_packets()
    if times is None:
        log.info(
            "Decoding '%s' once to find the times of its frames: its packets do not contain them.",
            name,
        )
        times = _decoded(name, scan, check_cancelled)
    if not times:
        raise UnreadableVideoError(
            f"'{name}' has a video stream without any frame. Copy or record it again."
        )
    times.notes += scan.early_end()
    if len(times) < scan.stated:
        log.warning(
            "Only %d of the %d frames that the file lists can be read.", len(times), scan.stated
        )
    for note in times.notes:
        log.warning("%s: %s", name, note)
    return times


def mark_of(packet: Packet) -> tuple[int, int]:
    """Size and checksum that identify a packet."""
    content = memoryview(packet)
    return packet.size, zlib.crc32(content[-_ENDS:], zlib.crc32(content[:_ENDS]))


class _Scan:
    """Everything that the packets tell, read once."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, check_cancelled: Callable[[], None]
    ) -> None:
        context, flags = stream.codec_context, container.format.flags
        flags = int(getattr(flags, "value", flags))
        broken = bool(flags & Flags.ts_discont.value)
        untimed = bool(flags & Flags.no_timestamps.value)
        self.by_bytes = (broken or untimed) and not flags & Flags.no_byte_seek.value
        self.stated = stream.frames
        self._seconds = 0.0 if self.by_bytes else (container.duration or 0) / av.time_base
        self.base = Fraction(stream.time_base or 1)
        rate = stream.average_rate or stream.guessed_rate or 25
        self.step = max(1, round(1 / (rate * self.base)))
        self.hidden = context.codec.canonical_name in _HIDDEN_PICTURES
        self._reorders = getattr(context, "has_b_frames", True)
        self.shown: list[int | None] = []
        self.decoded: list[int | None] = []
        """Presentation and decoding time of each video packet; None if it has none."""
        self.lengths: list[int] = []
        """How long the picture of each video packet is shown; 0 if the file does not say."""
        self.discarded: set[int] = set()
        self.keys: list[tuple[int, int, tuple[int, int]]] = []
        """Number, target and mark of every keyframe, as in Entry."""
        self._corrupt = 0
        self._ahead = AHEAD_BROKEN if broken else AHEAD
        self.track = Track(self.base, self._ahead)
        self.sound, self.texts = (
            {s.index: Track(Fraction(s.time_base or 1), ahead) for s in streams}
            for streams, ahead in (
                (container.streams.audio, AHEAD_SOUND),
                (container.streams.subtitles, None),
            )
        )
        self._read(container, stream, check_cancelled)
        for track in (self.track, *self.sound.values()):
            track.mark_strays()
        self.segments, of_run = find_segments(self.track, list(self.sound.values()))
        self._firsts, self._of_run = [run.first for run in self.track.runs], of_run

    def early_end(self) -> list[str]:
        """A note if the file is shorter than it says."""
        tracks = (self.track, *self.sound.values(), *self.texts.values())
        end = max(track.end for track in tracks)
        shown = sorted(time for time in self.shown if time is not None)
        pictures = float(_SHORT_PICTURES * usual_step(shown, self.step) * self.base)
        least = max(_SHORT, _SHORT_SHARE * self._seconds, pictures)
        if len(self.segments) > 1 or self._seconds - end <= least:
            return []
        return [
            f"The file should last {self._seconds:.1f} s but contains only {end:.1f} s: it is "
            "damaged or incomplete."
        ]

    def _read(
        self, container: InputContainer, stream: VideoStream, check_cancelled: Callable[[], None]
    ) -> None:
        position, last, beside = 0, None, self.sound | self.texts
        streams = [s for s in container.streams if s is stream or s.index in beside]
        for place, packet in enumerate(packets(container, streams)):
            check_cancelled()
            if packet.stream is not stream:
                beside[packet.stream.index].add(packet, place)
                continue
            number = self.track.count
            self.track.add(packet, place)
            self.shown.append(packet.pts)
            self.decoded.append(packet.dts)
            self.lengths.append(packet.duration or 0)
            position = position if packet.pos is None else packet.pos
            time = packet.pts if packet.dts is None else packet.dts
            target = position if self.by_bytes else time
            if packet.is_keyframe and target is not None:
                self.keys.append((number, target, mark_of(packet)))
            if packet.is_discard:
                self.discarded.add(number)
            self._corrupt += packet.is_corrupt
            last = packet.is_corrupt
        if last and not self.by_bytes:
            log.warning("The video is cut off in the middle of a frame.")
            self.shown.pop()
            self.decoded.pop()
            self._corrupt -= 1

    def in_packets(self) -> FrameTimes | None:
        """The frames, if the packets alone tell which there are and their times; else None."""
        shown = [time for time in self.shown if time is not None]
        if not shown or len(shown) < len(self.shown) or not self.keys or self.keys[0][0] != 0:
            return None
        if self.hidden or self._corrupt or len(self.track.runs) > 1:
            return None
        if min(shown) < shown[0] or len(set(shown)) < len(shown):
            return None
        if any(self._strange(n) for n in range(len(shown))):
            return None
        if self._reorders and len(shown) > 1 and all(a < b for a, b in pairwise(shown)):
            return None
        kept = (n for n in range(len(shown)) if n not in self.discarded)
        numbers = sorted(kept, key=shown.__getitem__)
        return self.finished([shown[n] for n in numbers], numbers)

    def segment_of(self, number: int) -> int:
        """The segment of a video packet; -1 if its time is a mistake."""
        run = bisect_right(self._firsts, number) - 1
        return self._of_run[max(run, 0)] if self._of_run else 0

    def times_of(self, number: int) -> tuple[int | None, int | None]:
        """(shown, decoded) of a packet as in the file; None for impossible times."""
        if self.segment_of(number) < 0:
            return None, None
        return None if self._strange(number) else self.shown[number], self.decoded[number]

    def _strange(self, number: int) -> bool:
        """Whether a packet's two times are so far apart that one must be wrong."""
        shown, decoded = self.shown[number], self.decoded[number]
        if shown is None or decoded is None:
            return False
        return abs(shown - decoded) * self.base > self._ahead

    def finished(
        self,
        times: Sequence[int],
        numbers: Sequence[int],
        *,
        bad: frozenset[int] = frozenset(),
        damaged: bool = False,
        notes: Sequence[str] = (),
    ) -> FrameTimes:
        """The FrameTimes; ``bad``: packets with damaged pictures, where decoding cannot begin."""
        shifts: dict[int, list[Shift]] = {}
        for tracks, ordered in ((self.sound, True), (self.texts, False)):
            for i, track in tracks.items():
                shifts[i] = shifts_of(track, self.segments, ordered=ordered)
        result = FrameTimes(
            times,
            numbers,
            time_base=self.base,
            by_bytes=self.by_bytes,
            segments=self.segments,
            shifts={i: s for i, s in shifts.items() if any(shift.seconds for shift in s)},
            notes=notes,
        )
        result.damaged = damaged
        if numbers and numbers[-1] != _REPEATED and self.lengths[numbers[-1]] > 0:
            result.end = times[-1] + self.lengths[numbers[-1]]
        result.wrong.update(f for f in map(result.frame_of, bad) if f is not None)
        for number, target, mark in self.keys:
            frame = result.frame_of(number)
            if frame is not None and number not in bad:
                result.entries.append(Entry(number, frame, target, mark))
        result.entries.sort(key=lambda entry: entry.frame)
        return result


def _decoded(name: str, scan: _Scan, check_cancelled: Callable[[], None]) -> FrameTimes:
    """The frames as a decoder returns them."""
    try:
        numbers, bad, errors = _labels(name, check_cancelled, single=False)
    except Damaged:
        numbers, bad, errors = _labels(name, check_cancelled, single=True)
    count = len(scan.shown)
    numbers = [number for number in numbers if number < count]
    if not numbers:
        return FrameTimes((), ())
    missing = set(range(count)).difference(numbers, scan.discarded)
    times, placed = _on_one_clock(scan, numbers, missing)
    lost = sum(number == _REPEATED for number in placed)
    headless = sum(number < min(numbers) for number in missing)
    notes = []
    if len(scan.segments) > 1:
        notes.append(
            f"The file's timestamps restart or jump {len(scan.segments) - 1} times, as in joined "
            "recordings; video and sound continue without a gap, as in players."
        )
    if headless:
        notes.append(
            f"The first {headless} frames depend on frames that are not in the file; they are "
            "left out, as in players."
        )
    return scan.finished(
        times,
        placed,
        bad=frozenset(bad),
        damaged=bool(errors or bad or lost),
        notes=notes + _damage(lost if errors else 0, len(bad)),
    )


def _labels(
    name: str, check_cancelled: Callable[[], None], *, single: bool
) -> tuple[list[int], list[int], int]:
    """(packets in the order of their pictures, packets of damaged pictures, number of errors)."""
    numbers, bad = [], []
    with open_video(name) as (container, stream):
        decoder = Decoder(stream, single=single)
        for number, picture in decoder.pictures(packets(container, [stream])):
            check_cancelled()
            numbers.append(number)
            if picture.is_corrupt:
                bad.append(number)
        return numbers, bad, decoder.errors


def _on_one_clock(
    scan: _Scan, numbers: Sequence[int], missing: set[int]
) -> tuple[list[int], list[int]]:
    """(times, packets) of the frames, on one clock; sets the segments' shifts."""
    groups: list[list[int]] = [[] for _ in scan.segments]
    current = 0
    for number in numbers:
        current = max(current, scan.segment_of(number))
        groups[current].append(number)
    absent: list[list[int]] = [[] for _ in scan.segments]
    for number in () if scan.hidden else sorted(missing):
        absent[max(0, scan.segment_of(number))].append(number)
    times: list[int] = []
    placed: list[int] = []
    for i, segment in enumerate(scan.segments):
        own, own_numbers = _of_segment(scan, i, groups[i], absent[i])
        if i:
            last = scan.segments[i - 1]
            # If none of its pictures can be decoded, its packets tell its times.
            start = own[0] if own else round(segment.start / scan.base)
            step = usual_step(own, scan.step)
            end = times[-1] + step if times else round(last.stop / scan.base)
            segment.shift, segment.begin = (end - start) * scan.base, end * scan.base
        ticks = round(segment.shift / scan.base)
        for time in own:
            times.append(max(time + ticks, times[-1] + 1) if times else time + ticks)
        placed += own_numbers
    return times, placed


def _of_segment(
    scan: _Scan, segment: int, numbers: Sequence[int], missing: Sequence[int]
) -> tuple[list[int], list[int]]:
    """(times, packets) of a segment's frames, with places for lost ones."""
    said: list[tuple[int | None, int | None]] = []
    before = _REPEATED
    for number in numbers:
        strange = number == before or scan.segment_of(number) != segment
        said.append((None, None) if strange else scan.times_of(number))
        before = number
    shown, decoded = [s for s, _ in said], [d for _, d in said]
    step = usual_step(shown, scan.step)
    times = best_times(shown, decoded, step)
    frames = list(zip(times, numbers, strict=True))
    absent = [shown for shown, _ in map(scan.times_of, missing) if shown is not None]
    frames += [(time, _REPEATED) for time in places_of_lost(times, absent, step)]
    frames.sort(key=lambda frame: frame[0])
    return [time for time, _ in frames], [number for _, number in frames]


def _damage(lost: int, wrong: int) -> list[str]:
    notes = []
    if wrong:
        notes.append(f"{wrong} frames are damaged in the file and are shown with errors.")
    if lost:
        notes.append(f"{lost} frames cannot be decoded; the previous frame is repeated.")
    return notes
