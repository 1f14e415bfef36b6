"""The video that a run upscales: which frames, when they are shown, how they are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...video import (
    EncodeParams,
    Fingerprint,
    Footage,
    FrameTimes,
    VideoInfo,
    VideoReader,
    check_unchanged,
    contents,
    fingerprint,
    probe,
)
from ..params import LongVideoParams
from .resizing import Resizing
from .span import Span, frames_of_span, seconds_of
from .window import Window

SMALLEST_SIDE = 16


@dataclass(frozen=True)
class Source:
    """A video file and the part of it to upscale.

    Frames count from the first of that part, unless said otherwise.
    """

    path: Path
    footage: Footage
    resizing: Resizing
    fingerprint: Fingerprint
    frames: range
    """Those to upscale, counted from the file's first."""
    check_cancelled: Callable[[], None]

    @classmethod
    def open(
        cls,
        path: Path,
        params: LongVideoParams,
        span: Span | None,
        check_cancelled: Callable[[], None],
    ) -> Source:
        """Look at the file.

        Raises UnreadableVideoError, and InputError for a video that is too small, a size out of
        reach, or a span without a frame.
        """
        info = probe(path)
        if min(info.height, info.width) < SMALLEST_SIDE:
            raise InputError(
                f"'{path}' is {info.width}x{info.height}: expected at least {SMALLEST_SIDE} px on "
                "each side."
            )
        resizing, known = Resizing.of(params, info), fingerprint(path)
        footage = Footage.open(path, params.deinterlace, info=info, check_cancelled=check_cancelled)
        frames = frames_of_span(span, footage.times, footage.times.time_base)
        return cls(path, footage, resizing, known, frames, check_cancelled)

    @property
    def info(self) -> VideoInfo:
        """What the file is."""
        return self.footage.info

    @property
    def times(self) -> FrameTimes:
        """Of all frames of the file."""
        return self.footage.times

    @property
    def size(self) -> tuple[int, int]:
        """Of the frames that are upscaled, (h, w)."""
        return self.resizing.plan.given

    def notes(self, encode: EncodeParams) -> list[str]:
        """What a user should know of it: all that is not kept as it is."""
        whole = self.frames.start == 0
        rows = contents(self.path, self.info, encode, whole=whole)
        notes = [row.to_text() for row in rows if row.fate != "kept"]
        return notes + self.footage.notes()

    def settings(self) -> dict[str, Any]:
        """What decides the frames besides the file and the run's own settings, as plain values.

        Options that change nothing are left out, so that jobs from before they existed match.
        """
        frames = [self.frames.start, self.frames.stop]
        mending = self.footage.mending.settings()
        return {"frames": frames, **self.resizing.settings(), **mending}

    def seconds(self) -> list[float]:
        """When the frames are shown, as ``seconds_of`` gives it."""
        return seconds_of(self.frames, self.times, self.times.time_base)

    def reader(self) -> VideoReader:
        """All the frames, as they are in the file."""
        return self._reader(self.frames)

    def window(self, scene: range, first: int) -> Window:
        """The frames of a scene, to be upscaled, from its frame ``first`` on."""
        own = self.frames[scene.start : scene.stop]
        return Window(self._reader(own[first:]), first, self.resizing.before)

    def _reader(self, frames: range) -> VideoReader:
        return self.footage.reader(frames, check_cancelled=self.check_cancelled)

    def check_unchanged(self) -> None:
        """Raise InputChangedError if the file is another than it was."""
        check_unchanged(self.fingerprint, self.path)
