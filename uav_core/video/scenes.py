"""Cuts of a video, and the scenes between them: only frames of one scene are denoised together."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, MissingPackageError
from ..sampling.segments import SEGMENT_LENGTH

Method = Literal["auto", "pyscenedetect", "built-in", "off"]
METHODS: tuple[Method, ...] = ("auto", "pyscenedetect", "built-in", "off")

# Least change at a cut, in levels of 0 to 255. _LEAST_CHANGE: of the picture and its colours, in
# the built-in method. _LEAST_CONTENT: of hue, saturation and value, PySceneDetect's own default.
# Real clips change by up to 5 from frame to frame, and by 30 and more at a cut.
_LEAST_CHANGE = 10.0
_LEAST_CONTENT = 15.0
# PySceneDetect uses frames of about this width by default; finer detail only adds noise.
_LONGEST_SIDE = 256
_GRID = (24, 32)
# Frames on each side of a cut that must differ: an interruption of one or two frames is a flash.
_SIDE = 3
# Frames on each side with whose changes the change at a cut is compared.
_AROUND = 3
# A flash returns to the scene before it; at a cut at least this share of the change must stay.
_LASTING = 0.5


@dataclass(frozen=True)
class SceneParams:
    """How to look for cuts. Raises InputError for values outside their range."""

    method: Method = "auto"
    """"auto" uses PySceneDetect if it is installed, else the built-in method."""
    threshold: float = 3.0
    """The least change at a cut, in multiples of the changes around it; above 1."""
    shortest: int = SEGMENT_LENGTH
    """Frames of the shortest scene, 1 or more; cuts that make a shorter one are ignored."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(
                f"The method to detect cuts is '{self.method}': expected one of {METHODS}."
            )
        if not self.threshold > 1:
            raise InputError(
                f"The threshold is {self.threshold}: expected more than 1; 3 is usual."
            )
        if self.shortest < 1:
            raise InputError(f"The shortest scene is {self.shortest} frames: expected 1 or more.")


def chosen_method(params: SceneParams) -> Method:
    """The method that ``find_cuts`` will use, with "auto" resolved.

    Raises MissingPackageError if PySceneDetect was chosen and cannot be imported.
    """
    if params.method not in ("auto", "pyscenedetect"):
        return params.method
    try:
        import scenedetect.detectors  # noqa: F401
    except ImportError as error:
        if params.method == "auto":
            return "built-in"
        raise MissingPackageError(
            "Detecting cuts with PySceneDetect needs the package scenedetect 0.6 or later, which "
            f"cannot be imported ({error}). Install scenedetect-headless, or choose 'built-in'."
        ) from error
    return "pyscenedetect"


def find_cuts(frames: Iterable[Tensor], params: SceneParams) -> tuple[int, ...]:
    """The first frame of every scene but the first.

    ``frames`` are (3, h, w) in [-1, 1], all of one size, taken one by one; only a few small copies
    are kept. Hard cuts are found. Dissolves, flashes of up to two frames, fades and fast pans are
    not taken for cuts. With "off" no frame is taken, and () is returned.

    Raises InputError for frames of another shape, and MissingPackageError: see ``chosen_method``.
    """
    method = chosen_method(params)
    if method == "off":
        return ()
    find = _pyscenedetect if method == "pyscenedetect" else _built_in
    total = 0

    def counted() -> Iterator[Tensor]:
        nonlocal total
        first: tuple[int, ...] | None = None
        for total, frame in enumerate(frames, start=1):
            shape = tuple(frame.shape)
            if len(shape) != 3 or shape[0] != 3 or 0 in shape or shape != (first or shape):
                raise InputError(
                    f"Frame {total - 1} is {shape}: expected {first or '(3, h, w)'} for all frames."
                )
            first = shape
            yield frame

    cuts: list[int] = []
    for cut in find(counted(), params.threshold):
        if cut - (cuts[-1] if cuts else 0) >= params.shortest:
            cuts.append(cut)
    return tuple(cut for cut in cuts if total - cut >= params.shortest)


def plan_scenes(frames: int, cuts: Iterable[int] = ()) -> tuple[range, ...]:
    """The scenes of a video of ``frames`` frames, in order.

    ``cuts`` are first frames of scenes, in any order. Raises InputError for no frames, or cuts
    outside 1 to frames - 1.
    """
    if frames < 1:
        raise InputError(f"A video of {frames} frames: expected at least one.")
    starts = sorted({0, *cuts})
    outside = [cut for cut in starts if not 0 <= cut < frames]
    if outside:
        raise InputError(
            f"Cuts at {outside}: the video has {frames} frames, so a scene can begin at frame 1 "
            f"to {frames - 1}."
        )
    return tuple(range(a, b) for a, b in zip(starts, [*starts[1:], frames], strict=True))


def parse_cuts(text: str, seconds: Sequence[float] | None = None) -> tuple[int, ...]:
    """Cuts given by hand, as first frames of scenes, in order.

    Accepts, separated by commas, frames ("340", counted from 0) and times ("0:12.5", "1:02:03",
    "12.5s"), which mean the nearest frame. Frame 0 is allowed and left out. ``seconds`` are the
    presentation times of all frames, rising; without them only the form is checked, and () is
    returned.

    Raises InputError naming the part that is not understood, or is outside the video.
    """
    cuts = set()
    for part in filter(None, (p.strip().lower() for p in text.split(","))):
        frame = int(part) if re.fullmatch(r"\d+", part) else None
        time = _parse_time(part)
        if frame is None and time is None:
            raise InputError(
                f'Cuts "{text}": "{part}" is not understood. Expected frames such as "340" or '
                'times such as "0:12.5", "1:02:03" or "12.5s", separated by commas.'
            )
        if seconds is None:
            continue
        end = seconds[-1] - seconds[0] if seconds else 0.0
        if frame is not None and frame >= len(seconds):
            raise InputError(
                f'Cuts "{text}": the video has {len(seconds)} frames, 0 to {len(seconds) - 1}; '
                f"there is no frame {frame}."
            )
        if time is not None:
            if not seconds or time > end:
                raise InputError(
                    f'Cuts "{text}": "{part}" is after the last frame, which is at {end:.3f}s.'
                )
            time += seconds[0]
            away = [abs(shown - time) for shown in seconds]
            frame = away.index(min(away))
        cuts.add(frame)
    return tuple(sorted(cuts - {0}))


def _parse_time(part: str) -> float | None:
    """The seconds of a time, or None if ``part`` is not a time."""
    if m := re.fullmatch(r"(\d+(?:\.\d+)?)\s*s", part):
        return float(m[1])
    if m := re.fullmatch(r"(?:(\d+):(?=[0-5]?\d:))?(\d+):([0-5]?\d(?:\.\d+)?)", part):
        return int(m[1] or 0) * 3600 + int(m[2]) * 60 + float(m[3])
    return None


@dataclass(frozen=True)
class _Change:
    """The change at a frame."""

    frame: int
    step: float
    """Difference from the frame before."""
    lasting: float
    """Least difference between any of the _SIDE frames before and any of the _SIDE from here on."""


def _changes(frames: Iterable[Tensor]) -> Iterator[_Change]:
    """The change at every frame but the first, _SIDE - 1 frames late."""
    recent: deque[tuple[Tensor, Tensor] | None] = deque([None] * 2 * _SIDE, 2 * _SIDE)
    # None stands for frames after the end: it moves the last frames to the middle.
    padded = chain(frames, [None] * (_SIDE - 1))
    for number, frame in enumerate(padded, start=1 - _SIDE):
        seen = None
        if frame is not None:
            # The sorted colours alone hardly change under motion; the picture itself does.
            grid = F.adaptive_avg_pool2d((frame.float() + 1) * 127.5, _GRID).flatten(1)
            seen = grid, grid.sort(dim=1).values
        recent.append(seen)
        if number > 0:
            known = [*recent]
            before = [each for each in known[:_SIDE] if each is not None]
            after = [each for each in known[_SIDE:] if each is not None]
            lasting = min(_distance(a, b) for a in before for b in after)
            yield _Change(number, _distance(before[-1], after[0]), lasting)


def _distance(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> float:
    """The mean difference of the pictures, averaged with that of their colours."""
    pair = torch.stack([(x - y).abs().mean() for x, y in zip(a, b, strict=True)])
    return float(pair.mean())


def _built_in(frames: Iterable[Tensor], threshold: float) -> Iterator[int]:
    """Cuts: where a change lasts and is much larger than the changes on both sides."""
    changes = list(_changes(frames))
    for i, change in enumerate(changes):
        near = changes[max(0, i - _AROUND) : i + _AROUND + 1]
        around = [other.lasting for other in near if other is not change]
        usual = sum(around) / max(len(around), 1)
        if change.lasting >= max(_LEAST_CHANGE, threshold * usual):
            yield change.frame


def _pyscenedetect(frames: Iterable[Tensor], threshold: float) -> Iterator[int]:
    """Cuts by PySceneDetect's adaptive detector, without the flashes it takes for cuts."""
    from scenedetect import FrameTimecode  # pyright: ignore[reportMissingImports]
    from scenedetect.detectors import AdaptiveDetector  # pyright: ignore[reportMissingImports]

    detector = AdaptiveDetector(
        adaptive_threshold=threshold, min_scene_len=1, min_content_val=_LEAST_CONTENT
    )
    found: set[int] = set()

    def fed() -> Iterator[Tensor]:
        for i, frame in enumerate(frames):
            # Only the number counts; the rate is not used.
            cuts = detector.process_frame(FrameTimecode(i, 25.0), _bgr(frame))
            found.update(int(cut) for cut in cuts)
            yield frame

    # The list comes first, so that all frames are fed and all cuts are found.
    for change in list(_changes(fed())):
        if change.frame in found and change.lasting >= _LASTING * change.step:
            yield change.frame


def _bgr(frame: Tensor) -> Any:
    """A reduced copy of a frame, (h, w, 3) uint8 BGR as in OpenCV."""
    h, w = frame.shape[-2:]
    scale = min(1.0, _LONGEST_SIDE / max(h, w))
    size = (max(1, round(h * scale)), max(1, round(w * scale)))
    small = F.adaptive_avg_pool2d(frame.float(), size)
    levels = ((small + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.flip(0).permute(1, 2, 0).contiguous().cpu().numpy()
