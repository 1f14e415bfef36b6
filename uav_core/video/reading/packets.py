"""Packets of a file, even of a damaged one, and the pictures in them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import av
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

log = logging.getLogger(__name__)

# Failed reads in a row after which the file counts as over.
_MOST_FAILURES = 16


def packets(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet]:
    """All packets of these streams that are not empty, in the file's order.

    Unreadable parts of the file are skipped. Packets flagged as damaged are included, because the
    last packet before a joint of two recordings has that flag too, and is whole.
    """
    failures = 0
    while failures < _MOST_FAILURES:
        try:
            for packet in container.demux(*streams):
                failures = 0
                if packet.size:
                    yield packet
            return
        except FFmpegError as error:
            failures += 1
            why = error.strerror
        except IndexError:
            # At the end, PyAV also flushes streams that began in the middle of the file and that
            # it has not listed.
            return
    log.warning("The file is damaged and ends early (%s).", why)


FLAGGED_LATE = ("mpeg4", "rv30", "rv40")
"""Decoders of FFmpeg that, with several threads, may return a damaged picture without its flag."""


class Damaged(Exception):
    """From here on the pictures of a decoder with several threads are not reliable."""


class Decoder:
    """Pictures of packets, each labelled with the number of its packet.

    Labels pass through the decoder in place of times, so that they do not depend on the file's
    times. Packets that the decoder refuses are skipped and counted in ``errors``.

    With several threads, the pictures after damage and how it is concealed depend on where decoding
    began, and at the end pictures next to a damaged one can be lost.

    Args:
        stream: the stream of a container opened only for this decoder.
        first: the number of the first packet.
        single: use one thread only, and never raise Damaged.
        strict: raise Damaged at the first damage instead of only at the end.
    """

    def __init__(
        self, stream: VideoStream, first: int = 0, *, single: bool = False, strict: bool = False
    ) -> None:
        self._stream, self._next, self.errors = stream, first, 0
        self._single, self._strict = single, strict and not single
        if single or stream.codec_context.name in FLAGGED_LATE:
            stream.codec_context.thread_count = 1
        else:
            stream.thread_type = "AUTO"

    def pictures(self, source: Iterable[Packet]) -> Iterator[tuple[int, av.VideoFrame]]:
        """(number of its packet, picture) of all packets of ``source``."""
        last = self._next - 1
        for packet in chain(source, (None,)):
            if packet is not None:
                packet.pts = packet.dts = self._next
                self._next += 1
            for picture in self._decode(packet):
                if picture.is_corrupt and self._strict:
                    raise Damaged
                last = last + 1 if picture.pts is None else picture.pts
                yield last, picture

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        try:
            return self._stream.codec_context.decode(packet)
        except FFmpegError as error:
            if self._strict or (packet is None and not self._single):
                raise Damaged from error
            self.errors += 1
            log.debug("A packet cannot be decoded: %s.", error.strerror)
            return []
