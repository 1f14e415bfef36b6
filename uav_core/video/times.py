"""When every frame of a video is shown."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from ..callbacks import ignore
from .errors import UnreadableVideoError
from .probe import Path, open_video

log = logging.getLogger(__name__)

# Their packets may hold pictures that are never shown.
_HIDDEN_PICTURES = ("vp8", "vp6", "vp6f", "vp7")


def whole_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """The stream's packets up to the first damaged one, then the empty packet that flushes."""
    packets = container.demux(stream)
    flush = None
    while flush is None:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            log.warning("The video is damaged and ends early (%s).", error.strerror)
            packet = None
        if packet is None or packet.is_corrupt or packet.size == 0:
            if packet is not None and packet.is_corrupt:
                log.warning("The video is cut off in the middle of a frame.")
            flush = Packet()
            flush.stream = stream
            yield flush
        else:
            yield packet


def decoded(
    packets: Iterator[Packet], stream: VideoStream
) -> Iterator[tuple[int | None, av.VideoFrame]]:
    """(time, picture) of every frame; None for a time that neither file nor decoder knows.

    Packets that the decoder refuses are left out.
    """
    for packet in packets:
        try:
            frames = stream.codec_context.decode(packet if packet.size else None)
        except FFmpegError as error:
            log.debug("A packet cannot be decoded: %s.", error.strerror)
            continue
        for frame in frames:
            yield (frame.dts if frame.pts is None else frame.pts), frame


def frame_times(path: Path, *, check_cancelled: Callable[[], None] = ignore) -> list[int]:
    """The presentation time of every frame, in the stream's time base, in order.

    Nothing is decoded if the packets alone tell; they do not where they carry no times, hold
    fields or hidden pictures, or the file does not begin with a whole group of pictures. What an
    edit list hides is left out. A file that is cut off gives the frames up to the damage, with a
    warning that says how many.

    Raises UnreadableVideoError as ``probe`` does.
    """
    with open_video(path) as (container, stream):
        times, stated = _demuxed(container, stream, check_cancelled), stream.frames
    if times is None:
        times = _decoded_times(path, check_cancelled)
    if not times:
        raise UnreadableVideoError(
            f"'{os.fspath(path)}' has a video stream without a single picture. Copy or record it "
            "again."
        )
    if len(times) < stated:
        log.warning("%d of the %d frames that the file lists can be read.", len(times), stated)
    return times


def count_frames(path: Path, *, check_cancelled: Callable[[], None] = ignore) -> int:
    """The exact number of frames that can be read; see ``frame_times``."""
    return len(frame_times(path, check_cancelled=check_cancelled))


def _demuxed(
    container: InputContainer, stream: VideoStream, check_cancelled: Callable[[], None]
) -> list[int] | None:
    context = stream.codec_context
    if context.codec.canonical_name in _HIDDEN_PICTURES:
        return None
    times, seen, first = [], set(), None
    for packet in whole_packets(container, stream):
        check_cancelled()
        if packet.size == 0:
            break
        if packet.pts is None or packet.pts in seen:
            return None
        if first is None:
            first = packet.pts
            if not packet.is_keyframe:
                return None
        if packet.pts < first:
            return None
        seen.add(packet.pts)
        if not packet.is_discard:
            times.append(packet.pts)
    return sorted(times)


def _decoded_times(path: Path, check_cancelled: Callable[[], None]) -> list[int]:
    log.info("Decoding '%s' once: its packets do not tell when frames are shown.", path)
    times: list[int] = []
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        for time, _ in numbered(decoded(whole_packets(container, stream), stream), stream):
            check_cancelled()
            times.append(time)
    return times


def numbered(
    frames: Iterator[tuple[int | None, av.VideoFrame]], stream: VideoStream
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Give frames without a time the one that follows at the average rate."""
    rate, base = stream.average_rate or stream.guessed_rate or 25, stream.time_base
    assert base is not None  # a demuxed stream has one
    step = max(1, round(1 / (Fraction(rate) * Fraction(base))))
    last = -step
    for time, frame in frames:
        last = last + step if time is None else time
        yield last, frame
