"""Joins parts into one file without encoding again, with the source's audio, text and chapters."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import merge
from itertools import pairwise
from math import log10
from operator import itemgetter

from av.container import OutputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.stream import VideoStream

from ...callbacks import ignore
from ...errors import InputError
from ...files import check_space, writing
from ..errors import BadPartError, EncodeError, EncodeParamsError
from ..reading.probe import Path, open_video, readable
from ..reading.times import FrameTimes
from .captions import caption_packets, copy_attachments, copy_chapters
from .choices import EncodeParams
from .parts import PartInfo, opened
from .parts import output as new_file
from .sound import Cut, Timed, audio_start, sound_packets
from .timecode import copy_timecode

log = logging.getLogger(__name__)


_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
_LEAST_TIMESCALE = 10_000  # for MP4 and MOV, FFmpeg's own value
_LONGEST = 2**31 - 1
"""The most units that a frame may last, in MP4 and in PyAV 14."""
# These tags describe how the source was written, not its content.
_DROPPED_TAGS = ("encoder", "major_brand", "minor_version", "compatible_brands", "duration")


@dataclass(frozen=True)
class Clock:
    """Decoding and presentation times of the finished file's frames, in ``time_base``.

    ``shown`` has one entry more than there are frames: the end of the last one.
    """

    shown: tuple[int, ...]
    time_base: Fraction
    reorder: int

    def stamps(self, order: int, index: int) -> tuple[int, int, int]:
        """(pts, dts, duration) of frame ``index``, the ``order``-th to be decoded.

        Decoding times are the presentation times of ``reorder`` frames earlier: they increase, and
        none is later than its frame's presentation time.
        """
        early = order - self.reorder
        first, second = self.shown[:2]
        dts = self.shown[early] if early >= 0 else first + early * (second - first)
        return self.shown[index], dts, self.shown[index + 1] - self.shown[index]

    def muxer_options(self, container: str) -> dict[str, str]:
        """Muxer options to count in ``time_base``; none for Matroska, which counts milliseconds.

        The stream's time base is not used: PyAV 14 cannot set it on a copied stream.
        """
        if container == ".mkv":
            return {}
        scale = self.time_base.denominator
        while scale < _LEAST_TIMESCALE:
            scale *= 2
        return {"video_track_timescale": str(scale)}


def plan_clock(
    times: Sequence[int],
    time_base: Fraction,
    origin: Fraction,
    rate: Fraction,
    *,
    first: int = 0,
    frames: int,
    reorder: int = 0,
    end: int | None = None,
) -> Clock:
    """The clock of frames ``first`` to ``first + frames`` of a source.

    Args:
        times: of all of the source's frames, in ``time_base``.
        origin: the time of the source, in seconds, that becomes 0.
        rate: frames per second, for the length of a single frame if ``end`` is None.
        first, frames: the first frame and the number of frames.
        reorder: as in PartInfo.
        end: when the source's last frame ends; None: it lasts as long as the one before.

    Frames at the time of the frame before, or earlier, are moved to one unit after it. If a frame
    would last too many units, the units become coarser.
    """
    times = [*times, *(() if end is None else (end,))]
    longest = max((b - a for a, b in pairwise(times[first : first + frames + 1])), default=0)
    if longest > _LONGEST:
        units = 10 ** max(0, int(log10(_LONGEST / (longest * time_base))))
        times, time_base = [round(t * time_base * units) for t in times], Fraction(1, units)
    shift = round(origin / time_base)
    kept = [t - shift for t in times[first : first + frames + 1]]
    for i in range(1, len(kept)):
        kept[i] = max(kept[i], kept[i - 1] + 1)
    if len(kept) == frames:
        last = kept[-1] - kept[-2] if frames > 1 else max(1, round(1 / (rate * time_base)))
        kept.append(kept[-1] + last)
    return Clock(tuple(kept), time_base, reorder)


def join(
    parts: Sequence[PartInfo],
    target: Path,
    times: FrameTimes,
    source: Path,
    params: EncodeParams,
    *,
    first: int = 0,
    check_cancelled: Callable[[], None] = ignore,
) -> int:
    """Join parts into ``target``, with the source's audio, and return its size in bytes.

    Text subtitles, chapters, attachments and the timecode are kept as well, where PyAV and the
    container allow it; ``contents`` says what happens to everything.

    Frames keep the source's presentation times, counted from the start of its pictures or its
    sound, whichever is earlier. Audio packets are copied if the container can hold their codec,
    otherwise encoded to AAC, in Matroska to FLAC. Title, language and the like are kept. Rotation
    is not: it is already in the frames. In Matroska everything may start some ms late, by the
    lead-in of copied AAC or MP3. If the parts have fewer frames than the source, the file is
    shorter and its audio is cut to that length. The same parts and source give the same bytes.

    Args:
        parts: in order, encoded with ``params``.
        target: the file; its extension is that of ``params.container``. Appears once complete.
        times: of all frames of the source, from ``frame_times`` or ``Footage``.
        source: the video the frames come from.
        params: from ``EncodeParams.for_source``.
        first: the frame of the source with which the first part begins.
        check_cancelled: called before each frame; may raise, which leaves nothing behind.

    Raises:
        BadPartError: a part is missing, damaged or not encoded like the first.
        InputError: no parts, or more frames than times.
        UnreadableVideoError: the source cannot be read.
        DiskFullError, FileError: nothing is left under either name.
    """
    frames = sum(part.frames for part in parts)
    if not frames or not 0 <= first <= len(times) - frames:
        raise InputError(
            f"{len(parts)} parts with {frames} frames from number {first} on: expected at least "
            f"one frame, and no more than the {len(times)} frames of the source."
        )
    if pathlib.Path(target).suffix.lower() != params.container:
        raise EncodeParamsError(
            f"'{os.fspath(target)}' is not named as a {params.container} file: expected that "
            "extension."
        )
    check_space(pathlib.Path(target).parent, sum(part.bytes for part in parts))
    try:
        with (
            open_video(source) as (container, shown),
            open_video(source) as (again, _),
            writing(pathlib.Path(target)) as file,
        ):
            base = times.time_base
            starts = [times[first] * base] + (audio_start(container, times) if first == 0 else [])
            # Rounded down to whole units, so that the frames' times stay exact.
            origin = min(starts) // base * base
            clock = plan_clock(
                times,
                base,
                origin,
                params.rate,
                first=first,
                frames=frames,
                reorder=max(part.reorder for part in parts),
                end=times.end,
            )
            end = first + frames
            cut = Cut(
                begin=times[first] * base if first else None,
                end=times[end] * base if end < len(times) else None,
                origin=origin,
            )
            options = clock.muxer_options(params.container)
            with new_file(file, _FORMATS[params.container], options) as output:
                stream, headers = _add_stream(output, parts[0], params)
                tags = readable(container.metadata).items()
                output.metadata.update((k, v) for k, v in tags if k.lower() not in _DROPPED_TAGS)
                sound = sound_packets(container, output, params.container, times, cut)
                captions = caption_packets(again, output, params.container, times, cut)
                copy_chapters(container, output, times, cut)
                copy_attachments(container, output, params.container)
                copy_timecode(container, shown, output, params.rate, first)

                def pictures() -> Timed:
                    found = _pictures(parts, headers, params.part_rate)
                    for order, (packet, index) in enumerate(found):
                        packet.pts, packet.dts, packet.duration = clock.stamps(order, index)
                        packet.time_base, packet.stream = clock.time_base, stream
                        yield packet.dts * clock.time_base + origin, packet

                refused = 0
                # Of packets at the same time, sound comes first, then text.
                for _, packet in merge(sound, captions, pictures(), key=itemgetter(0)):
                    check_cancelled()
                    try:
                        output.mux(packet)
                    except InvalidDataError as error:
                        if packet.stream is stream:
                            raise
                        refused += 1  # a damaged packet of sound or text
                        log.debug("A packet cannot be written into the file: %s.", error.strerror)
                if refused:
                    log.warning("%d damaged packets of sound or subtitles are left out.", refused)
    except FFmpegError as error:
        raise EncodeError(
            f"'{os.fspath(target)}' cannot be joined: {error.strerror}. If the source's audio is "
            "damaged, copy the source again; otherwise choose .mkv."
        ) from error
    return os.path.getsize(target)


def _add_stream(
    output: OutputContainer, part: PartInfo, params: EncodeParams
) -> tuple[VideoStream, bytes | None]:
    """The finished file's video stream, and the headers that all parts must have."""
    with opened(part.path) as (_, template):
        stream = output.add_stream_from_template(template, opaque=True)
        headers = template.codec_context.extradata
    stream.codec_context.framerate = params.rate
    # Not every codec's stream says it, and the part's own container does not.
    stream.codec_context.sample_aspect_ratio = params.sample_aspect
    if params.codec == "h265" and params.container != ".mkv":
        stream.codec_context.codec_tag = "hvc1"  # Apple's players take no other
    return stream, headers


def _pictures(
    parts: Sequence[PartInfo], headers: bytes | None, rate: Fraction
) -> Iterator[tuple[Packet, int]]:
    """(packet, number of its frame) of all parts, in decoding order."""
    start = 0
    for part in parts:
        seen = 0
        with opened(part.path) as (container, stream):
            if stream.codec_context.extradata != headers:
                raise BadPartError(
                    f"The part '{part.path}' was encoded with other settings, or another version "
                    "of the encoder, than the first part: encode the parts again."
                )
            for packet in container.demux(stream):
                if packet.size:
                    index = round((packet.pts or 0) * packet.time_base * rate)
                    if packet.is_corrupt or index >= part.frames:
                        break
                    seen += 1
                    yield packet, start + index
        if seen != part.frames:
            raise BadPartError(
                f"The part '{part.path}' has {seen} readable frames, expected {part.frames}: "
                "delete it and encode its frames again."
            )
        start += part.frames
