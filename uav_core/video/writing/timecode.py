"""The timecode of a source, which counts its frames from an hour and minute on."""

from __future__ import annotations

from fractions import Fraction

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
