"""Parts: short files, each with a run of encoded frames.

A part is Matroska, plays alone, begins with a keyframe and refers to nothing outside. Its frame i
is shown at i / ``params.part_rate`` seconds. The same frames and settings give the same bytes.
"""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import av
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream
from torch import Tensor

from ...callbacks import ignore
from ...errors import InputError
from ...files import BLOCK, hash_file, writing
from ..color import FromRGB
from ..errors import BadPartError, EncodeError
from ..reading.probe import Path
from .choices import CODECS, EncodeParams, check_available, open_encoder, usual_priority

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PartInfo:
    """A finished part."""

    path: str
    frames: int
    bytes: int
    blake2b: str
    """Hash of the whole file, in hex."""
    reorder: int = 0
    """The most frames by which decoding order runs ahead of presentation order."""


def encode_part(
    path: Path,
    frames: Iterable[Tensor],
    params: EncodeParams,
    size: tuple[int, int],
    *,
    container: str = "matroska",
    check_cancelled: Callable[[], None] = ignore,
) -> PartInfo:
    """Encode frames into a part.

    Args:
        path: the part, usually ending in .mkv. It appears once it is complete.
        frames: each (3, height, width) in [-1, 1], on any device; taken one at a time.
        params: from ``EncodeParams.for_source``.
        size: (width, height) of every frame.
        container: FFmpeg's name of the container; only Matroska makes a part for ``join``.
        check_cancelled: called before each frame; may raise, which leaves nothing behind.

    Raises:
        EncodeParamsError: the size or this build of PyAV does not fit the settings.
        InputError: no frames, or one of another shape.
        EncodeError: the encoder gave up.
        DiskFullError, FileError: nothing is left under either name.
    """
    params.check_size(*size)
    check_available(params)
    try:
        with writing(pathlib.Path(path)) as file:
            count, reorder = _encode(file, frames, params, size, container, check_cancelled)
    except FFmpegError as error:
        raise EncodeError(
            f"{params.codec} ({params.encoded_format}, {size[0]}x{size[1]}) failed: "
            f"{error.strerror}. Try another pixel format or codec."
        ) from error
    name = os.fspath(path)
    return PartInfo(name, count, os.path.getsize(name), hash_file(name), reorder)


def _encode(
    file: object,
    frames: Iterable[Tensor],
    params: EncodeParams,
    size: tuple[int, int],
    kind: str,
    check_cancelled: Callable[[], None],
) -> tuple[int, int]:
    convert, given, packed, reorder = FromRGB(params.encoded_format, params.color), 0, 0, 0
    with output(file, kind) as container:
        stream = container.add_stream(CODECS[params.codec].encoder, rate=params.part_rate)
        open_encoder(stream.codec_context, params, size)

        def write(picture: av.VideoFrame | None) -> None:
            nonlocal packed, reorder
            for packet in stream.encode(picture):
                index = round(packet.pts * packet.time_base * params.part_rate)
                reorder = max(reorder, packed - index)
                packed += 1
                container.mux(packet)

        for frame in frames:
            check_cancelled()
            if tuple(frame.shape) != (3, size[1], size[0]):
                raise InputError(
                    f"Frame {given} is {tuple(frame.shape)}: expected {(3, size[1], size[0])}."
                )
            picture = convert(frame)
            picture.pts, picture.time_base = given, 1 / params.part_rate
            # The encoder is opened by the first picture.
            with nullcontext() if given else usual_priority():
                write(picture)
            given += 1
        if not given:
            raise InputError("The part has no frames: expected at least one.")
        write(None)
    if packed != given:
        raise EncodeError(
            f"{params.codec} encoded {packed} frames, expected {given}. Try another codec."
        )
    return given, reorder


def output(file: object, kind: str, options: dict[str, str] | None = None) -> OutputContainer:
    """A container (FFmpeg's name: ``kind``) whose bytes depend only on what is written into it.

    It writes into our open file, as FFmpeg would not report a disk that is full at the end.
    """
    options = {"fflags": "+bitexact", **(options or {})}
    return av.open(file, "w", format=kind, container_options=options, buffer_size=BLOCK)


def part_info(path: Path, params: EncodeParams, blake2b: str) -> PartInfo:
    """The PartInfo of a part that an earlier run has encoded with ``params``.

    ``blake2b`` is its known hash, which is not computed again. Raises BadPartError if the part
    cannot be read.
    """
    name, frames, reorder = os.fspath(path), 0, 0
    with opened(name) as (container, stream):
        for packet in container.demux(stream):
            if packet.size and packet.pts is not None:
                index = round(packet.pts * packet.time_base * params.part_rate)
                reorder = max(reorder, frames - index)
                frames += 1
    return PartInfo(name, frames, os.path.getsize(name), blake2b, reorder)


@contextmanager
def opened(name: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A part, opened for reading; BadPartError if that fails, at once or later."""
    try:
        with av.open(name) as container:
            yield container, container.streams.video[0]
    except (FFmpegError, IndexError) as error:
        raise BadPartError(
            f"The part '{name}' cannot be read ({error}): delete it and encode its frames again."
        ) from error
