"""Reads the frames of a video file, one after the other."""

from __future__ import annotations

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from torch import Tensor

from ...callbacks import ignore
from ...errors import InputError
from ..color import ToRGB
from ..errors import UnreadableVideoError
from .deinterlace import AS_THEY_ARE, Mending, Pictures, deinterlaced
from .film import film, film_times, pictures_needed
from .packets import Damaged, Decoder, packets
from .probe import Path, VideoInfo, open_video, probe
from .times import Entry, FrameTimes, frame_times, mark_of

log = logging.getLogger(__name__)

# Packets after a seek among which the wanted one must be, and entries that are tried.
_NEAR, _TRIES = 500, 3


class VideoReader:
    """Iterates over frames ``start`` to ``stop`` as (3, h, w) float32 RGB in [-1, 1].

    Frames are rotated as in players. Only the decoder's few frames are in memory. A range gives
    the same frames as reading from the beginning: frames are found by their packets, not by the
    file's times. There is one frame for every entry of ``times``. In place of a lost picture the
    one before is repeated, with a warning and a note in ``times`` unless that already knew of it.

    Pictures of two fields are made whole with the pictures before and after, which are read for
    that even if they are outside the range.

    Args:
        path: the video.
        start: first frame, counted from 0.
        stop: end of the range, exclusive; None for all.
        times: the result of ``frame_times(path)``, if known: saves reading the file once. For film
            the ``film_times`` of that.
        info: the result of ``probe(path)``, if known.
        check_cancelled: called before every decoded frame; may raise.
        mending: how pictures of two fields are treated; see ``Footage``.

    Raises:
        UnreadableVideoError: as ``probe`` does.
        InputError: the range is not inside the video.
    """

    def __init__(
        self,
        path: Path,
        start: int = 0,
        stop: int | None = None,
        *,
        times: FrameTimes | None = None,
        info: VideoInfo | None = None,
        check_cancelled: Callable[[], None] = ignore,
        mending: Mending = AS_THEY_ARE,
    ) -> None:
        self.path, self.mending = os.fspath(path), mending
        self.info = info or probe(path)
        if times is None:
            times = frame_times(path, check_cancelled=check_cancelled)
            times = film_times(times) if mending.kind == "film" else times
        stop = len(times) if stop is None else stop
        if not 0 <= start < stop <= len(times):
            raise InputError(
                f"Frames {start} to {stop} of '{self.path}': expected a range inside its "
                f"{len(times)} frames."
            )
        self._range, self._times = range(start, stop), times.pictures
        needed = self._range
        if mending.kind == "film":
            needed = pictures_needed(self._range, len(self._times))
        self._start, self._stop = needed.start, needed.stop
        self._check_cancelled = check_cancelled
        self._open: Iterator[Tensor] | None = None

    def __len__(self) -> int:
        return len(self._range)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and end any iteration over it."""
        if self._open is not None:
            self._open.close()  # pyright: ignore[reportAttributeAccessIssue]
            self._open = None

    def __iter__(self) -> Iterator[Tensor]:
        """Start reading again at ``start``."""
        self.close()
        self._open = self._frames()
        return self._open

    def _frames(self) -> Iterator[Tensor]:
        to_rgb = ToRGB(self.info.color, self.info.coded_size)
        turn = self.info.orientation.apply
        pictures = enumerate(self._paced(), start=self._start)
        if self.mending.kind == "film":
            pictures = film(deinterlaced(pictures, self.mending), len(self._times))
        for number, picture in pictures:
            if number in self._range:
                yield turn(to_rgb(picture, number))

    def _paced(self) -> Iterator[av.VideoFrame]:
        """One picture for every needed number; a lost one is replaced by the one before."""
        want, shown, known = self._start, None, self._times.damage()
        pictures = self.pictures()
        if self._makes_whole:
            pictures = deinterlaced(pictures, self.mending)
        for frame, picture in chain(pictures, ((self._stop, None),)):
            while want < min(frame, self._stop) and shown is not None:
                if not self._times.lost(want):
                    self._times.found_lost.add(want)
                yield shown
                want += 1
            if picture is None or want == self._stop:
                break
            shown = picture
            if want <= frame:
                yield picture
                want += 1
        if want < self._stop:
            raise UnreadableVideoError(
                f"No frame of '{self.path}' from number {self._start} on can be decoded: the "
                "file is damaged there. Copy it again, or stop before that frame."
            )
        for note in self._times.damage() if self._times.damage() != known else ():
            log.warning("%s: %s", self.path, note)

    @property
    def _makes_whole(self) -> bool:
        return self.mending.kind in ("marked", "all")

    def pictures(self) -> Pictures:
        """(number, picture) as they are decoded, from the first needed one or an earlier one."""
        # Deinterlacing also uses the picture before.
        need = max(self._start - 1, 0) if self._makes_whole else self._start
        given = -1
        try:
            if not self._times.damaged:
                for given, picture in self._from(self._times.entries_before(need), need):
                    yield given, picture
                return
        except Damaged:
            self._times.damaged = True
        for frame, picture in self._in_pieces(max(need, given)):
            if frame > given:
                yield frame, picture

    def _in_pieces(self, need: int) -> Pictures:
        """Decode each piece of a damaged file on its own, from the piece of frame ``need`` on.

        What a decoder makes of damage depends on what came before; this way it is always the same.
        """
        starts = self._times.pieces()
        begin = max(bisect_right(starts, need, key=lambda entry: entry.frame) - 1, 0)
        for i in range(begin, len(starts) or 1):
            stop = starts[i + 1].frame if i + 1 < len(starts) else len(self._times)
            first = starts[i].frame if i else 0
            for frame, picture in self._from(starts[: i + 1][::-1], first):
                if frame >= stop:
                    break
                if frame >= first:
                    yield frame, picture

    def _from(self, entries: Sequence[Entry], need: int) -> Pictures:
        """Pictures from frame ``need`` or earlier on: from the first usable entry, or from 0."""
        for entry in entries[:_TRIES]:
            if entry.number == 0:
                break
            with open_video(self.path) as (container, stream):
                source = self._sought(container, stream, entry)
                if source is not None:
                    pictures = self._decoded(source, stream, entry.number)
                    first = next(pictures, None)
                    if first is not None and first[0] <= need and not first[1].is_corrupt:
                        yield from chain((first,), pictures)
                        return
        with open_video(self.path) as (container, stream):
            yield from self._decoded(packets(container, [stream]), stream, 0)

    def _decoded(self, source: Iterator[Packet], stream: VideoStream, number: int) -> Pictures:
        decoder = Decoder(stream, number, single=self._times.damaged, strict=True)
        before, again = None, 0
        for number, picture in decoder.pictures(source):
            self._check_cancelled()
            again = again + 1 if number == before else 0
            before = number
            frame = self._times.frame_of(number, again)
            if frame is not None:
                inside = self._start <= frame < self._stop
                if picture.is_corrupt and inside and frame not in self._times.wrong:
                    self._times.found_wrong.add(frame)
                yield frame, picture

    def _sought(
        self, container: InputContainer, stream: VideoStream, entry: Entry
    ) -> Iterator[Packet] | None:
        """Packets from the entry's packet on; None if it is not found."""
        by_bytes = self._times.by_bytes
        try:
            container.seek(
                entry.target,
                stream=None if by_bytes else stream,
                unsupported_byte_offset=by_bytes,
            )
        except FFmpegError:
            return None  # not every format can seek
        source = packets(container, [stream])
        for packet in islice(source, _NEAR):
            if packet.is_keyframe and mark_of(packet) == entry.mark:
                return chain((packet,), source)
        return None
