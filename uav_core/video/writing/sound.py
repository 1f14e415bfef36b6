"""Copies the source's audio into the finished file, or encodes it where it cannot be copied."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, inf
from typing import Any

from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet

from ..reading.probe import readable
from ..reading.times import FrameTimes

log = logging.getLogger(__name__)

# Codecs that players expect; FFmpeg itself would write more kinds into MP4 and MOV.
_PCM = ("pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be", "pcm_f32le")
_COPIED = {
    ".mp4": ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"),
    ".mov": ("aac", "mp3", "ac3", "eac3", "alac", *_PCM),
}
_ENCODER = {".mp4": "aac", ".mov": "aac", ".mkv": "flac"}
_BITS_PER_CHANNEL = 96_000  # per second, for AAC
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)

# Packets past the end of the cut after which a stream counts as over.
_MOST_LATE = 50


Timed = Iterator[tuple[Fraction | float, Packet]]
"""Packets to write, with their times in seconds of the source: -inf is at once, inf at the end."""


@dataclass(frozen=True)
class Cut:
    """The range of a source that is kept, in seconds of the frames' clock."""

    begin: Fraction | None
    """None: from the source's own beginning."""
    end: Fraction | None
    """None: to the source's own end."""
    origin: Fraction
    """The time that becomes 0."""

    def shortened(self, start: Fraction, stop: Fraction) -> tuple[Fraction, Fraction]:
        """The kept part of ``start`` to ``stop``; empty (stop <= start) if nothing is kept."""
        start = start if self.begin is None else max(start, self.begin)
        return start, stop if self.end is None else min(stop, self.end)


class Track:
    """One audio stream of the source and its stream in the finished file."""

    def __init__(self, source: AudioStream, output: OutputContainer, container: str) -> None:
        self.source = source
        self.target: Any
        self.copied, self.target = _add_stream(source, output, container)
        self._uniform = None if self.copied else _Uniform(self.target.codec_context)
        describe(self.target, source)
        self.done = False
        self._late = 0
        self._last: int | None = None

    def packets(self, packet: Packet, cut: Cut) -> Iterator[Packet]:
        """Packets of the finished file for one packet of the source; an empty one flushes.

        Packets that end before the cut begins, or start after its end, are left out.
        """
        if packet.size and self._outside(packet, cut):
            return
        for out in self._encoded(packet, self._uniform) if self._uniform else (packet,):
            if out.size:
                yield self._placed(out, cut.origin)

    def _outside(self, packet: Packet, cut: Cut) -> bool:
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is None:
            return True
        start = packet.pts * packet.time_base
        if cut.end is not None and start >= cut.end:
            # A single packet may have a wrong time, so that only many of them end the stream.
            self._late += 1
            self.done = self._late > _MOST_LATE
            return True
        stop = start + (packet.duration or 0) * packet.time_base
        return cut.begin is not None and stop <= cut.begin

    def _encoded(self, packet: Packet, uniform: _Uniform) -> list[Packet]:
        out: list[Packet] = []
        frames: list[Any] = []
        try:
            frames = self.source.codec_context.decode(packet if packet.size else None)
        except FFmpegError as error:
            log.warning("A piece of audio cannot be decoded (%s) and is left out.", error.strerror)
        for frame in frames if packet.size else (*frames, None):
            for even in uniform.frames(frame):
                out += self.target.encode(even)
        return out if packet.size else out + self.target.encode(None)

    def _placed(self, packet: Packet, origin: Fraction) -> Packet:
        shift = round(origin / packet.time_base)
        shown = (packet.pts or 0) - shift
        dts = shown if packet.dts is None else packet.dts - shift
        # Muxers refuse packets whose times do not increase; MP4 counts them in samples.
        least = max(1, ceil(1 / (self.source.rate * packet.time_base)))
        if self._last is not None and dts < self._last + least:
            dts = self._last + least
        packet.pts, packet.dts, self._last = max(shown, dts), dts, dts
        packet.stream = self.target
        return packet


class _Uniform:
    """Gives decoded sound the format, layout and rate of an encoder, though its own may change.

    An encoder accepts one kind of frame only, but broadcasts switch from stereo to mono.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self._kind: tuple[Any, ...] = ()
        self._time_base: Fraction | None = None
        self._resampler: Any = None

    def frames(self, frame: AudioFrame | None) -> list[AudioFrame]:
        """The frames to encode after one more decoded frame; None is the end."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate) if frame else ()
        made = []
        if kind != self._kind:
            made = self._resampled(None)  # what the last resampler still holds
            self._kind, self._resampler = kind, None
        return made + self._resampled(frame) if frame else made

    def _resampled(self, frame: AudioFrame | None) -> list[AudioFrame]:
        if frame and self._resampler is None:
            to = self._encoder
            self._resampler = AudioResampler(to.format, to.layout, to.sample_rate)
        # Where nothing is to be done, a resampler gives back even the None of the end.
        made = [out for out in self._resampler.resample(frame) if out] if self._resampler else []
        for out in made:
            # The encoder takes the clock of its first frame for that of all.
            self._time_base = self._time_base or out.time_base
            if out.pts is not None and out.time_base != self._time_base:
                out.pts = round(out.pts * out.time_base / self._time_base)
                out.time_base = self._time_base
        return made


def encoder_for(source: AudioStream, container: str) -> str | None:
    """The encoder for a stream in a container; None if the stream is copied."""
    name = source.codec_context.codec.canonical_name
    return None if name in _COPIED.get(container, (name,)) else _ENCODER[container]


def _add_stream(
    source: AudioStream, output: OutputContainer, container: str
) -> tuple[bool, AudioStream]:
    name, encoder = source.codec_context.codec.canonical_name, encoder_for(source, container)
    if encoder is None:
        try:
            return True, output.add_stream_from_template(source, opaque=True)
        except ValueError:
            pass  # the container cannot hold it
    encoder = _ENCODER[container]
    log.info("Audio in %s cannot be stored in %s: it is encoded to %s.", name, container, encoder)
    rate = source.rate
    if encoder == "aac" and rate not in _AAC_RATES:
        rate = 48000
    target: Any = output.add_stream(encoder, rate=rate)
    layout = source.layout.name
    if layout.endswith(" channels") or "/" in layout:  # the file does not name it
        layout = usual_layout(source.channels)
    target.codec_context.layout = layout
    target.codec_context.time_base = Fraction(1, rate)
    target.codec_context.flags |= Flags.bitexact
    if encoder == "aac":
        target.bit_rate = _BITS_PER_CHANNEL * source.channels
    return False, target


def usual_layout(channels: int) -> str:
    """FFmpeg's name of the usual layout of ``channels`` channels, such as "5.1"."""
    try:
        return AudioLayout(f"{channels}c").name
    except ValueError:  # there is none
        return f"{channels} channels"


def describe(target: Any, source: Any) -> None:
    """Copy the source stream's language, title and disposition to ``target``."""
    tags = readable(source.metadata).items()
    target.metadata.update((k, v) for k, v in tags if k.lower() in ("language", "title"))
    target.disposition = source.disposition.value


def audio_start(container: InputContainer, times: FrameTimes) -> list[Fraction]:
    """The start of each audio stream, in seconds of the frames' clock."""
    return [
        times.moved_start(s.index, s.start_time * s.time_base)
        for s in container.streams.audio
        if s.start_time is not None and s.time_base is not None
    ]


def sound_packets(
    source: InputContainer, output: OutputContainer, container: str, times: FrameTimes, cut: Cut
) -> Timed:
    """Add a source's audio streams to the output; returns their packets to write, in file order.

    ``times`` are those of the frames; the sound is put on their clock.
    """
    streams = [s for s in source.streams.audio if s.codec_context is not None]
    tracks = {s.index: Track(s, output, container) for s in streams}

    def made() -> Timed:
        for packet in times.packets(source, streams) if streams else ():
            stamp = packet.pts if packet.dts is None else packet.dts
            start = -inf if stamp is None else stamp * packet.time_base
            yield from ((start, out) for out in tracks[packet.stream.index].packets(packet, cut))
            if all(track.done for track in tracks.values()):
                break
        for track in tracks.values():
            if not track.done:
                yield from ((inf, out) for out in track.packets(Packet(), cut))

    return made()
