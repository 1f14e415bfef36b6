"""Reads the properties of a video file, without reading it whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import av
import av.stream
from av import logging as av_logging
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from ..color import Color, color_of, depth
from ..errors import UnreadableVideoError
from .packets import Decoder, packets
from .side_data import (
    Orientation,
    has_alpha,
    is_slanted,
    kinds_of,
    light_level,
    mastering_display,
    orientation_of,
)

# Pictures checked for being marked as interlaced: the first one may be progressive.
_ASKED = 10

# Tags need not be UTF-8. PyAV before 19 then refuses the file without this option; later versions
# keep the bytes as surrogates, which ``readable`` replaces.
_OTHER_TAGS: dict[str, Any] = (
    {"metadata_errors": "replace"} if hasattr(InputContainer, "metadata_errors") else {}
)

Path = str | os.PathLike[str]


@dataclass(frozen=True)
class VideoInfo:
    """The properties of a video file as a player shows it."""

    width: int
    """Pixels as shown: after rotation, before the sample aspect stretches them."""
    height: int
    orientation: Orientation
    sample_aspect: Fraction
    """Width to height of one shown pixel; 1 if the file does not say."""
    rate: Fraction
    """Average frames per second; 25 if the file does not say."""
    time_base: Fraction
    """Seconds per unit of the frames' times."""
    bit_depth: int
    color: Color
    interlaced: bool
    """Whether one of its first pictures is marked as two fields."""
    has_alpha: bool = False
    """Whether there is transparency, in its pictures or in an extra layer."""
    mastering: str = ""
    """The display of an HDR master, as from ``mastering_display``."""
    light_level: str = ""
    """The light level of an HDR video, as from ``side_data.light_level``."""
    slant: int = 0
    """Degrees of a rotation that is not applied, as it is not a multiple of 90; else 0."""
    side_data: tuple[str, ...] = ()
    """Kinds of side data of its first picture, by FFmpeg's names."""

    @property
    def coded_size(self) -> tuple[int, int]:
        """(width, height) before rotation."""
        if self.orientation.transpose:
            return self.height, self.width
        return self.width, self.height


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The opened file and the stream that a player would show; closed afterwards.

    Raises UnreadableVideoError, which says what is wrong with the file.
    """
    name = os.path.abspath(os.fspath(path))
    _check_file(name)
    _silence()
    try:
        # Only files: a playlist must not make us open network addresses.
        container = av.open(name, container_options={"protocol_whitelist": "file"}, **_OTHER_TAGS)
    except FFmpegError as error:
        raise UnreadableVideoError(_why_not_opened(name, error)) from error
    with container:
        yield container, _shown_stream(container, name)


def _silence() -> None:
    """Keep FFmpeg's messages out of Python, as PyAV does by default.

    torchvision up to 0.22 turns them on when it is imported. A decoder's thread with a message then
    waits for Python's lock, while the thread that closes the decoder holds the lock and waits for
    that thread to end: a deadlock.
    """
    if av_logging.get_level() is not None:
        av_logging.set_level(None)


def readable(metadata: Mapping[str, str]) -> dict[str, str]:
    """Tags of a file with U+FFFD in place of invalid UTF-8, with any PyAV."""

    def utf8(text: str) -> str:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    return {utf8(key): utf8(value) for key, value in metadata.items()}


def _check_file(name: str) -> None:
    if os.path.isdir(name):
        raise UnreadableVideoError(f"'{name}' is a folder: expected a video file.")
    try:
        with open(name, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise UnreadableVideoError(
            f"'{name}' cannot be opened ({error.strerror}): expected a video file."
        ) from error
    if empty:
        raise UnreadableVideoError(
            f"'{name}' is empty (0 bytes): expected a video file. Copy or record it again."
        )


def _why_not_opened(name: str, error: FFmpegError) -> str:
    boxes = _mp4_boxes(name)
    if b"ftyp" in boxes and b"moov" not in boxes:
        return (
            f"'{name}' is an MP4 or MOV file without its index (moov): the recording or the copy "
            "was not finished. Copy it again, or repair it with the tool of the recorder."
        )
    if isinstance(error, EOFError):
        return f"'{name}' ends before its first frame. Copy or record it again."
    return (
        f"'{name}' is not a video that FFmpeg can read ({error.strerror}): expected MP4, MKV, "
        "MOV, WebM, AVI or similar."
    )


def _mp4_boxes(name: str) -> list[bytes]:
    """Names of an MP4's top-level boxes, up to the first invalid one."""
    boxes, size = [], os.path.getsize(name)
    with open(name, "rb") as file:
        position = 0
        while position + 8 <= size and len(boxes) < 1000:
            file.seek(position)
            head = file.read(16)
            boxes.append(head[4:8])
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8:
                break
            position += length
    return boxes


def _shown_stream(container: InputContainer, name: str) -> VideoStream:
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        found = ", ".join(s.type for s in container.streams) or "nothing"
        raise UnreadableVideoError(
            f"'{name}' has no video stream (found: {found}): expected a file with moving pictures."
        )
    if streams[0].codec_context is None:
        raise UnreadableVideoError(
            f"'{name}' has a codec that this build of PyAV cannot decode: convert it to H.264 "
            "first."
        )
    return streams[0]


def probe(path: Path) -> VideoInfo:
    """Read a file's properties from its headers and first pictures.

    Raises UnreadableVideoError: the file is missing, empty, not a video, cut off before its
    index, or has no video stream or no picture.
    """
    with open_video(path) as (container, stream):
        decoder, source = Decoder(stream, single=True), packets(container, [stream])
        opening = [*islice(source, 1)]
        pictures = (picture for _, picture in decoder.pictures(chain(opening, source)))
        first = next(pictures, None)
        if first is None:
            wrong = f"'{os.fspath(path)}' has a video stream without any frame."
            if decoder.errors:
                wrong = (
                    f"'{os.fspath(path)}' is damaged: none of its {decoder.errors} frames can be "
                    "decoded."
                )
            raise UnreadableVideoError(f"{wrong} Copy or record it again.")
        turned = orientation_of(first)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        if turned.transpose:
            aspect = 1 / aspect
        width, height = first.width, first.height
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        assert stream.time_base is not None  # a demuxed stream has one
        return VideoInfo(
            width=height if turned.transpose else width,
            height=width if turned.transpose else height,
            orientation=turned,
            sample_aspect=aspect,
            rate=Fraction(rate),
            time_base=Fraction(stream.time_base),
            bit_depth=depth(first.format.name),
            color=color_of(stream.codec_context),
            interlaced=any(p.interlaced_frame for p in islice(chain((first,), pictures), _ASKED)),
            has_alpha=has_alpha(stream, opening[0], first),
            mastering=mastering_display(first),
            light_level=light_level(first),
            slant=first.rotation if is_slanted(first) else 0,
            side_data=kinds_of(first),
        )
