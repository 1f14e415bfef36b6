"""The video that a run upscales: which frames, when they are shown, how read, how resized."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

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
    """From ``start`` on, for ``duration``, in seconds of the video's own clock; 0: to its end.

    Frames are chosen as ComfyUI chooses those of a trimmed VIDEO: the ones shown from ``start`` on
    and before ``start + duration``, both rounded down to a tick of the clock.
    """

    start: float = 0.0
    duration: float = 0.0


def frames_of_span(span: Span | None, times: FrameTimes) -> range:
    """The frames of a part of a video, or all of them; InputError if there are none."""
    if span is None:
        return range(len(times))
    first, stop = bisect_left(times, int(span.start / times.time_base)), len(times)
    if span.duration:
        stop = bisect_left(times, int((span.start + span.duration) / times.time_base))
    if first >= stop:
        seconds = float((times[-1] - times[0]) * times.time_base)
        raise InputError(
            f"The video is trimmed to {span.duration:g} s from {span.start:g} s on, where it "
            f"has no frame: it has {len(times)} frames in {seconds:.3g} s. Trim it less."
        )
    return range(first, stop)


def seconds_of(frames: range, times: FrameTimes) -> list[float]:
    """When frames are shown: by the file's clock, or from 0 on where they begin inside the file.

    So times of cuts mean the same wherever they are shown or asked for.
    """
    begin = times[frames.start] if frames.start else 0
    return [float((times[i] - begin) * times.time_base) for i in frames]


@dataclass(frozen=True)
class Resizing:
    """The sizes of one video: a plan for frames, applied to one at a time.

    No frame knows of another, so that neither parts nor a stop in between change one.
    """

    plan: SizePlan
    square: bool
    """Whether the pixels of the result are square whatever the source's are."""

    @classmethod
    def of(cls, params: LongVideoParams, info: VideoInfo) -> Resizing:
        """For a video as a player shows it. Raises InputError for a size out of reach."""
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
        """A frame of the source, (3, h, w) in [-1, 1], as the run takes it."""
        return _from_image(before(_image(frame), self.plan)) if self.shrinks else frame

    def after(self, frame: Tensor) -> Tensor:
        """An upscaled frame, (3, 4h, 4w) in [-1, 1], as it is encoded."""
        return _from_image(after(_image(frame), self.plan)) if self.finishes else frame

    def encode(self, params: EncodeParams) -> EncodeParams:
        """The encoder's settings for the resized video; EncodeParamsError if it cannot hold it."""
        if self.square:
            params = replace(params, sample_aspect=Fraction(1))
        params.check_size(self.plan.size[1], self.plan.size[0])
        return params

    def settings(self) -> dict[str, Any]:
        """All that decides the frames, as plain values; empty where nothing is resized."""
        return {"size": asdict(self.plan)} if self.shrinks or self.finishes else {}

    @property
    def bytes(self) -> int:
        """RAM that resizing a frame takes, an upper guess: float32, in another range and order."""
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
            return f"resized before from {source} to {given}"
        return f"resized after from {upscaled}" if self.finishes else ""


def _image(frame: Tensor) -> Tensor:
    """(3, h, w) in [-1, 1] as ComfyUI's IMAGE, (1, h, w, 3) in [0, 1]."""
    return frame.float().movedim(0, -1)[None].add(1).div(2)


def _from_image(images: Tensor) -> Tensor:
    return images[0].movedim(-1, 0).mul(2).sub(1).contiguous()


class Window:
    """Frames of one scene of a video, read once, in order, and dropped when done with.

    Numbers count from the scene's first frame.
    """

    def __init__(self, reader: VideoReader, first: int, resize: Callable[[Tensor], Tensor]) -> None:
        """``reader`` begins with frame ``first``; ``resize`` makes of (3, h, w) what is kept."""
        self._held = HeldFrames(first)
        self._frames = map(resize, reader)
        self.close = reader.close

    @property
    def stop(self) -> int:
        """The frame that is read next."""
        return self._held.stop

    def frames(self, start: int, stop: int) -> Tensor:
        """(1, 3, stop - start, h, w) in [-1, 1]."""
        while self._held.stop < stop:
            self._held.append([next(self._frames)[None]])
        return self._held.stack(start, stop)

    def drop(self, stop: int) -> None:
        """Frames before ``stop`` are not asked for again."""
        self._held.drop(stop)


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
        frames = frames_of_span(span, footage.times)
        return cls(path, footage, resizing, known, frames, check_cancelled)

    @property
    def size(self) -> tuple[int, int]:
        """Of the frames that are upscaled, (h, w)."""
        return self.resizing.plan.given

    def notes(self, encode: EncodeParams) -> list[str]:
        """What a user should know of it: all that is not kept as it is."""
        whole = self.frames.start == 0
        rows = contents(self.path, self.footage.info, encode, whole=whole)
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
        return seconds_of(self.frames, self.footage.times)

    def reader(self, first: int = 0, stop: int | None = None) -> VideoReader:
        """The frames from ``first`` to ``stop``, or all, as they are in the file."""
        frames = self.frames[first:stop]
        return self.footage.reader(frames, check_cancelled=self.check_cancelled)

    def window(self, scene: range, first: int) -> Window:
        """The frames of a scene, to be upscaled, from its frame ``first`` on."""
        reader = self.reader(scene.start + first, scene.stop)
        return Window(reader, first, self.resizing.before)

    def check_unchanged(self) -> None:
        """Raise InputChangedError if the file is another than it was."""
        check_unchanged(self.fingerprint, self.path)
