"""Packets of a file, also of a damaged one, and the pictures they hold."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

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
    log.warning("The file is damaged and ends early (%s).", why)


class TailLost(Exception):
    """A decoder of several threads failed at its last pictures and kept the ones beside them."""


class Decoder:
    """Pictures of packets, each labelled with the number of its packet.

    Labels travel through the decoder in place of times, so that they hold whatever the file says
    of those. Packets that the decoder refuses are passed over and counted in ``errors``.

    Args:
        stream: of a container opened for this alone.
        first: the number of the first packet.
        single: one thread only, whose results do not depend on where an error struck.
    """

    def __init__(self, stream: VideoStream, first: int = 0, *, single: bool = False) -> None:
        self._stream, self._next, self._single, self.errors = stream, first, single, 0
        if single:
            stream.codec_context.thread_count = 1
        else:
            stream.thread_type = "AUTO"

    def pictures(self, source: Iterable[Packet]) -> Labelled:
        """Decode all of them. Raises TailLost, if not ``single``."""
        last = self._next - 1
        for packet in source:
            packet.pts = packet.dts = self._next
            self._next += 1
            for picture in self._decode(packet):
                last = last + 1 if picture.pts is None else picture.pts
                yield last, picture
        for picture in self._decode(None):
            last = last + 1 if picture.pts is None else picture.pts
            yield last, picture

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        try:
            return self._stream.codec_context.decode(packet)
        except FFmpegError as error:
            if packet is None and not self._single:
                raise TailLost from error
            self.errors += 1
            log.debug("A packet cannot be decoded: %s.", error.strerror)
            return []
