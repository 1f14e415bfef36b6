"""The timecode of a source, which counts its frames from an hour and minute on."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from io import BytesIO

import av
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

_TAG = "timecode"


def timecode_of(container: InputContainer) -> str:
    """The timecode of the first frame, "01:00:00:00"; "" where there is none."""
    for holder in (container, *container.streams):
        for name, value in holder.metadata.items():
            if name.lower() == _TAG:
                return value
    return ""


def keeps_timecode(rate: Fraction, stream: VideoStream) -> bool:
    """Whether a timecode can count frames of this rate, and counted those of the source.

    Film that is brought back from 30 frames to 24 is counted otherwise.
    """
    counted = Fraction(stream.average_rate or stream.guessed_rate or 25)
    return rate.denominator in (1, 1001) and rate == counted


@cache
def fits_into(container: str) -> bool:
    """Whether this PyAV can give a container such as ".mov" a timecode with copied pictures.

    MP4 and MOV have to know the rate of the frames, which PyAV 14.2 does not copy.
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
    """Give the output the source's timecode, if it begins with the source's ``first`` frame 0."""
    for name in [name for name in output.metadata if name.lower() == _TAG]:
        del output.metadata[name]
    code = timecode_of(source)
    if code and first == 0 and keeps_timecode(rate, stream):
        output.metadata[_TAG] = code
