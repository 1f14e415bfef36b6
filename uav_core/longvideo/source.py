"""The video that a run upscales: which frames, their times, how they are read and resized."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..frames.output_size import SizePlan, after, before, plan_video
from ..sampling.stream.frames import HeldFrames
from ..video import (
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
from .params import LongVideoParams

SMALLEST_SIDE = 16


@dataclass(frozen=True)
class Span:
    """A part of a video, in seconds of its own clock; a ``duration`` of 0 means to its end.

    Frames are chosen as in ComfyUI's trimmed VIDEO: those shown from ``start`` on and before
    ``start + duration``, both rounded down to a tick of the clock.
    """

    start: float = 0.0
    duration: float = 0.0


def frames_of_span(span: Span | None, times: FrameTimes) -> range:
    """The frames of ``span``, or all frames if None. Raises InputError if there are none."""
    if span is None:
        return range(len(times))
    first, stop = bisect_left(times, int(span.start / times.time_base)), len(times)
    if span.duration:
        stop = bisect_left(times, int((span.start + span.duration) / times.time_base))
    if first >= stop:
        seconds = float((times[-1] - times[0]) * times.time_base)
        raise InputError(
            f"The video is trimmed to a duration of {span.duration:g} s (0: to the end) from "
            f"{span.start:g} s, which contains no frame: it has {len(times)} frames in "
            f"{seconds:.3g} s. Choose another range."
        )
    return range(first, stop)


def seconds_of(frames: range, times: FrameTimes) -> list[float]:
    """Times of frames in seconds: by the file's clock, or from 0 if they begin inside the file.

    So times of cuts mean the same wherever they are shown or given.
    """
    begin = times[frames.start] if frames.start else 0
    return [float((times[i] - begin) * times.time_base) for i in frames]


@dataclass(frozen=True)
class Resizing:
    """The sizes of one video: a plan for its frames.

    Every frame is resized on its own, so that neither parts nor a stop in between change one.
    """

    plan: SizePlan
    square: bool
    """Whether the pixels of the result are square whatever the source's are."""

    @classmethod
    def of(cls, params: LongVideoParams, info: VideoInfo) -> Resizing:
        """The resizing of a video. Raises InputError for a size out of reach."""
        aspect = float(info.sample_aspect)
        plan = plan_video(info.height, info.width, params.size, params.resize, aspect)
        return cls(plan, params.size.target == "exact size")

    @property
    def shrinks(self) -> bool:
        """Whether ``before`` changes anything."""
        return self.plan.given != self.plan.source or self.plan.scale != (1.0, 1.0)

    @property
    def finishes(self) -> bool:
        """Whether ``after`` changes anything."""
        return not self.plan.upscaled == self.plan.content == self.plan.picture == self.plan.size

    def before(self, frame: Tensor) -> Tensor:
        """A frame of the source, (3, h, w) in [-1, 1], resized for the model."""
        return _from_image(before(_image(frame), self.plan)) if self.shrinks else frame

    def after(self, frames: Tensor) -> Tensor:
        """Upscaled frames, (1, 3, n, 4h, 4w) in [-1, 1], resized for the encoder where they are."""
        if not self.finishes:
            return frames
        each = [_from_image(after(_image(frame), self.plan)) for frame in frames[0].unbind(1)]
        return torch.stack(each).transpose(0, 1)[None]

    def encode(self, params: EncodeParams) -> EncodeParams:
        """The encoder's settings for the resized video; EncodeParamsError for an unfit size."""
        if self.square:
            params = replace(params, sample_aspect=Fraction(1))
        params.check_size(self.plan.size[1], self.plan.size[0])
        return params

    def settings(self) -> dict[str, Any]:
        """Everything that decides the resizing, as plain values; empty if nothing is resized."""
        return {"size": asdict(self.plan)} if self.shrinks or self.finishes else {}

    @property
    def bytes(self) -> int:
        """RAM to resize a frame, an upper estimate: it is copied in float32, in another order."""
        pixels = 0
        if self.shrinks:
            pixels += 2 * math.prod(self.plan.source)
        if self.finishes:
            pixels += 2 * (math.prod(self.plan.upscaled) + math.prod(self.plan.size))
        return 4 * 3 * pixels

    def to_text(self) -> str:
        """ "resized after from 2560x1440", "resized before from 640x360 to 320x180", or ""."""
        source, given, upscaled = (
            f"{w}x{h}" for h, w in (self.plan.source, self.plan.given, self.plan.upscaled)
        )
        if self.shrinks:
            return f"resized before upscaling from {source} to {given}"
        return f"resized after upscaling from {upscaled}" if self.finishes else ""


def _image(frame: Tensor) -> Tensor:
    """A frame (3, h, w) in [-1, 1] as ComfyUI's IMAGE, (1, h, w, 3) in [0, 1]."""
    return frame.float().movedim(0, -1)[None].add(1).div(2)


def _from_image(images: Tensor) -> Tensor:
    return images[0].movedim(-1, 0).mul(2).sub(1).contiguous()


class Window(HeldFrames):
    """Frames of one scene of a video, read once, in order, when they are first asked for.

    Numbers count from the scene's first frame.
    """

    def __init__(self, reader: VideoReader, first: int, resize: Callable[[Tensor], Tensor]) -> None:
        """``reader`` begins with frame ``first``; ``resize`` turns each (3, h, w) into its size."""
        super().__init__(first)
        self._frames = map(resize, reader)
        self.close = reader.close

    def stack(self, start: int, stop: int) -> Tensor:
        """(1, 3, stop - start, h, w) in [-1, 1]."""
        while self.stop < stop:
            self.append([next(self._frames)[None]])
        return super().stack(start, stop)


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
    """The frames to upscale, counted from the file's first."""
    check_cancelled: Callable[[], None]

    @classmethod
    def open(
        cls,
        path: Path,
        params: LongVideoParams,
        span: Span | None,
        check_cancelled: Callable[[], None],
    ) -> Source:
        """Open the file and read its properties.

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
        frames = frames_of_span(span, footage.times)
        return cls(path, footage, resizing, known, frames, check_cancelled)

    @property
    def size(self) -> tuple[int, int]:
        """Size (h, w) of the frames that are upscaled."""
        return self.resizing.plan.given

    def notes(self, encode: EncodeParams) -> list[str]:
        """Notes for the user on everything in the file that the result does not keep."""
        whole = self.frames.start == 0
        rows = contents(self.path, self.footage.info, encode, whole=whole)
        notes = [row.to_text() for row in rows if row.fate != "kept"]
        return notes + self.footage.notes()

    def settings(self) -> dict[str, Any]:
        """What decides the frames besides the file and the run's settings, as plain values.

        Options without effect are left out, so that jobs from before they existed match.
        """
        frames = [self.frames.start, self.frames.stop]
        mending = self.footage.mending.settings()
        if self.footage.mending.kind == "film" and self.footage.info.bit_depth > 8:
            mending["film_colors"] = "kept"  # they were changed before
        return {"frames": frames, **self.resizing.settings(), **mending}

    def seconds(self) -> list[float]:
        """Times of the frames in seconds, as from ``seconds_of``."""
        return seconds_of(self.frames, self.footage.times)

    def reader(self, first: int = 0, stop: int | None = None) -> VideoReader:
        """A reader of the frames from ``first`` to ``stop`` (or all), not resized."""
        frames = self.frames[first:stop]
        return self.footage.reader(frames, check_cancelled=self.check_cancelled)

    def window(self, scene: range, first: int) -> Window:
        """The frames of a scene, resized for the model, from its frame ``first`` on."""
        reader = self.reader(scene.start + first, scene.stop)
        return Window(reader, first, self.resizing.before)

    def check_unchanged(self) -> None:
        """Raise InputChangedError if the file has changed since it was opened."""
        check_unchanged(self.fingerprint, self.path)
