"""The timecode of a source, which counts its frames from a start time."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from io import BytesIO

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

_TAG = "timecode"


def timecode_of(container: InputContainer) -> str:
    """The timecode of the first frame, such as "01:00:00:00"; "" if there is none."""
    for holder in (container, *container.streams):
        for name, value in holder.metadata.items():
            if name.lower() == _TAG:
                return value
    return ""


def keeps_timecode(rate: Fraction, stream: VideoStream) -> bool:
    """Whether a timecode can count frames of this rate, and the source has the same rate.

    Film restored from 30 to 24 frames per second would need another count.
    """
    counted = Fraction(stream.average_rate or stream.guessed_rate or 25)
    return rate.denominator in (1, 1001) and rate == counted


@cache
def fits_into(container: str) -> bool:
    """Whether this PyAV can write a timecode into a container such as ".mov" with copied packets.

    MP4 and MOV need the frame rate for it, which PyAV 14.2 does not copy.
    """
    if container == ".mkv":
        return True
    plain, copied = BytesIO(), BytesIO()
    with av.open(plain, "w", format="mov") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 16
        output.mux([*stream.encode(av.VideoFrame(16, 16, "yuv420p")), *stream.encode()])
    plain.seek(0)
    with av.open(plain) as source, av.open(copied, "w", format="mov") as output:
        copy = output.add_stream_from_template(source.streams.video[0], opaque=True)
        output.metadata[_TAG] = "00:00:00:00"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    copied.seek(0)
    with av.open(copied) as source:
        return bool(timecode_of(source))


def copy_timecode(
    source: InputContainer,
    stream: VideoStream,
    output: OutputContainer,
    rate: Fraction,
    first: int,
) -> None:
    """Copy the source's timecode to the output if ``first`` is 0 and the rate allows it."""
    for name in [name for name in output.metadata if name.lower() == _TAG]:
        del output.metadata[name]
    code = timecode_of(source)
    if code and first == 0 and keeps_timecode(rate, stream):
        output.metadata[_TAG] = code
