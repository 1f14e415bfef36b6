"""Frames of a video file, one after the other."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from types import TracebackType

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from torch import Tensor

from ..callbacks import ignore
from ..errors import InputError
from .color import ToRGB
from .deinterlace import Deinterlace, Pictures, check_deinterlace, deinterlaced, deinterlaces
from .errors import UnreadableVideoError
from .probe import Path, VideoInfo, open_video, probe
from .times import decoded, frame_times, numbered, whole_packets

log = logging.getLogger(__name__)


class VideoReader:
    """Iterates over frames ``start`` to ``stop`` as (3, h, w) float32 RGB in [-1, 1].

    Turned as players turn them. Only the decoder's few frames are in memory. A range gives the
    very frames that reading from the beginning gives. There is one frame for every entry of
    ``times``: where the file is damaged the picture before is repeated, with a warning.

    Interlaced pictures are made whole, one for two fields, with the pictures before and after,
    which are read for that even where they lie outside the range.

    Args:
        path: the video.
        start: first frame, counted from 0.
        stop: end of the range, exclusive; None for all.
        times: what ``frame_times(path)`` gave, if it is known: saves reading the file once.
        info: what ``probe(path)`` gave, likewise.
        check_cancelled: called before every decoded frame; may raise.
        deinterlace: which pictures are two fields; "auto": those that say so, if one of the
            file's first does.

    Raises:
        UnreadableVideoError: as ``probe`` does.
        InputError: the range is not inside the video, or another word for ``deinterlace``.
    """

    def __init__(
        self,
        path: Path,
        start: int = 0,
        stop: int | None = None,
        *,
        times: Sequence[int] | None = None,
        info: VideoInfo | None = None,
        check_cancelled: Callable[[], None] = ignore,
        deinterlace: Deinterlace = "auto",
    ) -> None:
        check_deinterlace(deinterlace)
        self.path = os.fspath(path)
        self.info = info or probe(path)
        if times is None:
            times = frame_times(path, check_cancelled=check_cancelled)
        stop = len(times) if stop is None else stop
        if not 0 <= start < stop <= len(times):
            raise InputError(
                f"Frames {start} to {stop} of '{self.path}': expected a range inside its "
                f"{len(times)} frames."
            )
        self._times, self._start, self._stop = times, start, stop
        self._check_cancelled = check_cancelled
        self._every = deinterlace == "always"
        self.deinterlaces = deinterlaces(deinterlace, self.info.interlaced)
        self._open: Iterator[Tensor] | None = None

    def __len__(self) -> int:
        return self._stop - self._start

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what iterates over it ends."""
        if self._open is not None:
            self._open.close()  # pyright: ignore[reportAttributeAccessIssue]
            self._open = None

    def __iter__(self) -> Iterator[Tensor]:
        """Begin again at ``start``."""
        self.close()
        self._open = self._frames()
        return self._open

    def _frames(self) -> Iterator[Tensor]:
        to_rgb = ToRGB(self.info.color, self.info.coded_size)
        turn = self.info.orientation.apply
        for number, picture in enumerate(self._paced(), start=self._start):
            yield turn(to_rgb(picture, number))

    def _paced(self) -> Iterator[av.VideoFrame]:
        """One picture for every time of the range."""
        wanted = iter(self._times[self._start : self._stop])
        want, shown, repeated = next(wanted), None, 0
        pictures = self._pictures()
        if self.deinterlaces:
            pictures = deinterlaced(pictures, self._every)
        for time, picture in pictures:
            while want is not None and want < time and shown is not None:
                repeated += 1
                yield shown
                want = next(wanted, None)
            shown = picture
            if want is not None and want <= time:
                yield picture
                want = next(wanted, None)
            if want is None:
                break
        while want is not None:
            if shown is None:
                raise UnreadableVideoError(
                    f"No frame of '{self.path}' from number {self._start} on can be decoded: the "
                    "file is damaged there. Copy it again, or stop before that frame."
                )
            repeated += 1
            yield shown
            want = next(wanted, None)
        if repeated:
            log.warning(
                "%d frames of '%s' cannot be decoded; the one before is repeated.",
                repeated,
                self.path,
            )

    def _pictures(self) -> Pictures:
        """Decoded pictures from at or before the first that is needed."""
        # Of fields, the picture before is looked at too.
        first_needed = max(self._start - 1, 0) if self.deinterlaces else self._start
        target, begin = self._times[first_needed], self._times[0]
        back = 0
        while first_needed > 0 and target - back > begin:
            with open_video(self.path) as (container, stream):
                packets = self._from_keyframe(container, stream, target - back, target)
                if packets is not None:
                    pictures = self._decoded(packets, stream)
                    first = next(pictures, None)
                    if first is not None and first[0] <= target:
                        yield from chain((first,), pictures)
                        return
                # The keyframe found is shown after the target: look further back.
                assert stream.time_base is not None
                back = max(2 * back, round(1 / stream.time_base))
        with open_video(self.path) as (container, stream):
            yield from self._decoded(whole_packets(container, stream), stream)

    def _decoded(self, packets: Iterator[Packet], stream: VideoStream) -> Pictures:
        stream.thread_type = "AUTO"
        for item in numbered(decoded(packets, stream), stream):
            self._check_cancelled()
            yield item

    def _from_keyframe(
        self, container: InputContainer, stream: VideoStream, near: int, target: int
    ) -> Iterator[Packet] | None:
        """Packets from a keyframe that is shown at or before ``target``; None if none is found."""
        try:
            container.seek(near, stream=stream)
        except FFmpegError:
            return None  # not every format can seek
        packets = whole_packets(container, stream)
        for packet in packets:
            if packet.size and packet.is_keyframe:
                if packet.pts is None or packet.pts > target:
                    return None
                return chain((packet,), packets)
        return None
