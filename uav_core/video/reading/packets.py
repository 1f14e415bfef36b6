"""Packets of a file, also of a damaged one, and the pictures they hold."""

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

# So often in a row may reading fail before the file counts as over.
_MOST_FAILURES = 16

Labelled = Iterator[tuple[int, av.VideoFrame]]
"""Pictures with the number of the packet that each was in."""


def packets(container: InputContainer, streams: Sequence[Stream]) -> Iterator[Packet]:
    """All packets of these streams that hold anything, in the file's order.

    What cannot be read is passed over. Packets flagged as damaged are among them: that flag also
    stands at the last packet before a joint of two recordings, which is whole.
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
            # At the end, where PyAV flushes streams as well that came up in the middle of the file
            # and that it has not listed.
            return
    log.warning("The file is damaged and ends early (%s).", why)


class Damaged(Exception):
    """What a decoder of several threads made from here on is not to be relied on."""


class Decoder:
    """Pictures of packets, each labelled with the number of its packet.

    Labels travel through the decoder in place of times, so that they hold whatever the file says
    of those. Packets that the decoder refuses are passed over and counted in ``errors``.

    With several threads, which pictures come after damage and how it is concealed depends on
    where decoding began, and at the end pictures beside a damaged one can be lost.

    Args:
        stream: of a container opened for this alone.
        first: the number of the first packet.
        single: one thread only.
        strict: raise Damaged at the first damage, if not ``single``; else only at the end.
    """

    def __init__(
        self, stream: VideoStream, first: int = 0, *, single: bool = False, strict: bool = False
    ) -> None:
        self._stream, self._next, self.errors = stream, first, 0
        self._single, self._strict = single, strict and not single
        if single:
            stream.codec_context.thread_count = 1
        else:
            stream.thread_type = "AUTO"

    def pictures(self, source: Iterable[Packet]) -> Labelled:
        """Decode all of them."""
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
