"""Copies text subtitles, attachments and chapters of the source into the finished file."""

from __future__ import annotations

import logging
from fractions import Fraction
from itertools import pairwise
from typing import Any

from av.codec.codec import UnknownCodecError
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.subtitles.stream import SubtitleStream

from ..reading.probe import readable
from ..reading.times import FrameTimes
from .sound import Cut, Timed, describe

log = logging.getLogger(__name__)

# Text codecs by FFmpeg's names. Picture subtitles are left out: they are drawn for the source's
# size.
_TEXT = ("subrip", "ass", "webvtt", "mov_text", "text")
_COPIED = {
    ".mp4": ("mov_text",),
    ".mov": ("mov_text",),
    ".mkv": ("subrip", "ass", "webvtt", "text"),
}
_ENCODER = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "subrip"}
_GAP = b"\0\0"
"""An empty packet between two texts in MP4; not copied, as the muxer fills gaps by itself."""


def caption_packets(
    source: InputContainer, output: OutputContainer, container: str, times: FrameTimes, cut: Cut
) -> Timed:
    """Add a source's text subtitles to the output; returns their packets to write, by time.

    They are copied if the container can hold their codec, otherwise encoded to MP4's text or, in
    Matroska, to SubRip, which drops some styling. Subtitles that cannot be kept are logged. All are
    read at once (an hour has some hundred kilobytes), so ``source`` cannot be used further.
    """
    targets = {}
    for stream in source.streams.subtitles:
        target = _add_stream(stream, output, container)
        if target is not None:
            describe(target, stream)
            targets[stream.index] = target
    streams = [s for s in source.streams.subtitles if s.index in targets]
    placed: dict[int, list[Packet]] = {index: [] for index in targets}
    for packet in times.packets(source, streams) if targets else ():
        index = packet.stream.index
        if packet.pts is not None and bytes(packet) != _GAP:
            placed[index] += _placed(packet, targets[index], cut)
    found = []
    for texts in placed.values():
        for packet in texts if container == ".mkv" else _in_turn(texts):
            found.append(((packet.pts or 0) * Fraction(packet.time_base) + cut.origin, packet))
    return iter(sorted(found, key=lambda entry: entry[0]))


def _kept(start: Fraction, stop: Fraction, cut: Cut) -> tuple[Fraction, Fraction]:
    """The part of a text or chapter that is in the file; empty (stop <= start) if none is.

    Muxers would move everything that follows one that begins before the file does.
    """
    start, stop = cut.shortened(start, stop)
    return max(start, cut.origin), stop


def _in_turn(texts: list[Packet]) -> list[Packet]:
    """Texts for MP4, one after another: those shown at once stand together, one below the other.

    FFmpeg's muxer would delay a text that begins before the one before has ended, and all others.
    """
    spans = [(text.pts or 0, (text.pts or 0) + (text.duration or 0), text) for text in texts]
    bounds = sorted({bound for begin, end, _ in spans for bound in (begin, end)})
    spans.sort(key=lambda span: span[0])
    found: list[Packet] = []
    shown: list[tuple[int, int, Packet]] = []
    for begin, end in pairwise(bounds):
        while spans and spans[0][0] <= begin:
            shown.append(spans.pop(0))
        shown = [span for span in shown if span[1] > begin]
        if not shown:
            continue
        contents = [bytes(text) for _, _, text in shown]
        if len(contents) > 1:
            # Two bytes for the length, the text, then its styles, which are left out.
            lines = dict.fromkeys(c[2 : 2 + int.from_bytes(c[:2], "big")] for c in contents)
            both = b"\n".join(lines)[: 2**16 - 1].decode(errors="ignore").encode()
            contents = [len(both).to_bytes(2, "big") + both]
        packet = Packet(contents[0])
        packet.pts = packet.dts = begin
        packet.duration = end - begin
        packet.time_base, packet.stream = shown[0][2].time_base, shown[0][2].stream
        found.append(packet)
    return found


def _placed(packet: Packet, target: Any, cut: Cut) -> list[Packet]:
    """The packet of a text for the output; empty if it is outside the cut."""
    base = Fraction(packet.time_base)
    start = (packet.pts or 0) * base
    start, stop = _kept(start, start + (packet.duration or 0) * base, cut)
    source: Any = packet.stream
    written: Packet | None = packet
    if start >= stop:
        return []
    if source.codec_context.codec.canonical_name != target.codec_context.codec.canonical_name:
        written = _encoded(packet, source, target)
    if written is None:
        return []
    written.pts = written.dts = round((start - cut.origin) / base)
    written.duration = max(1, round((stop - start) / base))
    written.time_base, written.stream = base, target
    return [written]


def codec_name(stream: Any) -> str:
    """FFmpeg's name of the codec of a stream."""
    context = stream.codec_context
    return "an unknown codec" if context is None else context.codec.canonical_name


def fate_of_captions(source: SubtitleStream, container: str) -> tuple[Any, str]:
    """What happens to a stream of subtitles: ``fate`` and ``how`` of a Holding."""
    name, context = codec_name(source), source.codec_context
    if name not in _TEXT:
        return "left out", "they are pictures that fit only the source's size"
    if name in _COPIED[container]:
        return "kept", ""
    if context is not None and hasattr(context, "encode_subtitle"):
        return "converted", f"they become {_ENCODER[container]}"
    return "left out", f"this version of PyAV cannot convert them for {container}; choose .mkv"


def attachments_of(source: InputContainer) -> tuple[Any, ...]:
    """Fonts and other files attached to a source; none with an older PyAV."""
    return tuple(getattr(source.streams, "attachments", ()))


def keeps_attachments(container: str) -> bool:
    """Whether this PyAV can write attachments into such a file."""
    return container == ".mkv" and hasattr(OutputContainer, "add_attachment")


def copy_attachments(source: InputContainer, output: OutputContainer, container: str) -> None:
    """Add the source's attachments to the output; must come before the first packet."""
    if keeps_attachments(container):
        for number, attachment in enumerate(attachments_of(source), start=1):
            name = attachment.name or f"attachment {number}"
            kind = attachment.mimetype or "application/octet-stream"
            output.add_attachment(name, kind, attachment.data)


def _add_stream(source: SubtitleStream, output: OutputContainer, container: str) -> Any:
    """The subtitle stream of the finished file, or None if it cannot hold these subtitles."""
    context: Any = source.codec_context
    name, (fate, why) = codec_name(source), fate_of_captions(source, container)
    language = readable(source.metadata).get("language", "no language")
    try:
        if fate == "kept":
            return output.add_stream_from_template(source)
        if fate == "converted":
            target: Any = output.add_stream(_ENCODER[container])
            if not context.is_open:
                context.open(strict=False)
            target.codec_context.subtitle_header = context.subtitle_header
            target.codec_context.time_base = Fraction(1, 1000)
            log.info("Subtitles (%s): %s is converted to %s.", language, name, _ENCODER[container])
            return target
    except (ValueError, UnknownCodecError, FFmpegError) as error:
        why = f"this version of PyAV cannot write them into {container} ({error}); choose .mkv"
    log.warning("Subtitles (%s) in %s are not kept: %s.", language, name, why)
    return None


def _encoded(packet: Packet, source: Any, target: Any) -> Packet | None:
    try:
        shown = source.codec_context.decode2(packet)
        return None if shown is None else target.codec_context.encode_subtitle(shown)
    except FFmpegError as error:
        log.warning("A subtitle cannot be read (%s) and is left out.", error.strerror)
        return None


def copy_chapters(
    source: InputContainer, output: OutputContainer, times: FrameTimes, cut: Cut
) -> None:
    """Add the source's chapters to the output; must come before the first packet.

    Does nothing with an older PyAV, which has no chapters.
    """
    if not hasattr(source, "chapters"):
        return
    kept: list[Any] = []
    chapters: list[Any] = list(source.chapters())
    for chapter in chapters:
        base = Fraction(chapter["time_base"])
        start, stop = (times.on_clock(chapter[side] * base) for side in ("start", "end"))
        start, stop = _kept(start, stop, cut)
        if start < stop:
            first = round((start - cut.origin) / base)
            last = round((stop - cut.origin) / base)
            kept.append(
                {
                    **chapter,
                    "start": first,
                    "end": max(first + 1, last),
                    "metadata": readable(chapter["metadata"]),
                }
            )
    if not kept:
        return
    if hasattr(output, "set_chapters"):
        output.set_chapters(kept)
    else:
        log.warning("%d chapters are not kept: this version of PyAV cannot write them.", len(kept))
