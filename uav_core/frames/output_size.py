"""Any output size from a model of 4x: how to resize frames before it, and after it.

A plan holds numbers only. Frames are ComfyUI's IMAGE, (t, h, w, c) in [0, 1], with any number of
channels, and are resized one at a time by torch's antialiased bicubic interpolation, which
averages over areas when it shrinks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor

from ..callbacks import ignore
from ..errors import InputError
from ..models.vae import UPSCALE

Target = Literal["factor", "short side", "exact size"]
Aspect = Literal["fit", "pad", "crop", "stretch"]
When = Literal["before", "after"]
WHEN: dict[When, str] = {"before": "before upscaling (fast)", "after": "after upscaling (best)"}
"""The texts of the choices in the nodes."""
Pair = tuple[int, int]
"""Rows, columns."""

SMALLEST_SIDE = 16
"""Least side to which frames are shrunk before upscaling: the model takes no smaller ones."""


@dataclass(frozen=True)
class OutputSize:
    """The wanted size. Raises InputError for values outside their range."""

    target: Target = "factor"
    factor: float = 2.0
    """Times the size of the input, 1 to 4; for "factor"."""
    short_side: int = 1080
    """Pixels; for "short side"."""
    width: int = 1920
    height: int = 1080
    """Pixels; for "exact size"."""
    aspect: Aspect = "fit"
    """If an exact size has another aspect than the frames: "fit" stays inside it, "pad" adds black
    bars, "crop" cuts the edges off, "stretch" distorts."""
    even: bool = True
    """Sides rounded to even numbers, as most video codecs want them."""

    def __post_init__(self) -> None:
        if self.target not in get_args(Target) or self.aspect not in get_args(Aspect):
            raise InputError(
                f"Output size with target '{self.target}' and aspect '{self.aspect}': expected a "
                f"target of {get_args(Target)} and an aspect of {get_args(Aspect)}."
            )
        if not 1 <= self.factor <= UPSCALE:
            raise InputError(f"The factor is {self.factor}: expected 1 to {UPSCALE}.")
        for name, side in (
            ("short side", self.short_side),
            ("width", self.width),
            ("height", self.height),
        ):
            if side < SMALLEST_SIDE:
                raise InputError(f"The {name} is {side}: expected {SMALLEST_SIDE} px or more.")


@dataclass(frozen=True, kw_only=True)
class SizePlan:
    """What ``before`` and ``after`` do. Pairs are rows, then columns, in pixels."""

    source: Pair
    """Size of the frames that ``before`` takes."""
    start: Pair = (0, 0)
    """The first row and column of ``source`` that is used."""
    scale: tuple[float, float] = (1.0, 1.0)
    """The factor by which ``before`` resizes the frames, at most 1."""
    given: Pair
    """Size of the frames that the model gets."""
    upscaled: Pair
    """Size of the frames that ``after`` takes."""
    corner: Pair = (0, 0)
    """The first row and column of the picture in the upscaled frames."""
    content: Pair
    """Size of the picture in the upscaled frames; the rest is cut off."""
    picture: Pair
    """Size to which ``after`` resizes the picture."""
    size: Pair
    """Size of the finished frames: larger than the picture if there are bars."""

    def to_text(self) -> str:
        """The sizes of all stages, width x height."""
        steps = {"frames": self.source}
        if self.upscaled != self.source:
            steps |= {"to the model": self.given, "upscaled": self.upscaled}
        steps["finished"] = self.size
        return ", ".join(f"{name} {_text(size)}" for name, size in steps.items())


def plan_size(
    h: int, w: int, wanted: OutputSize, *, upscaled: bool = False, pixel_aspect: float = 1.0
) -> SizePlan:
    """The plan for frames (h, w).

    Without ``upscaled`` the frames are the model's input, and ``before`` shrinks them as far as 4x
    upscaling allows. With it they are the model's result, and only ``after`` has work to do. A size
    above four times the input is reached by enlarging afterwards. ``pixel_aspect`` is the ratio of
    width to height of a displayed pixel; an exact size has square pixels, other targets keep the
    pixels as they are.

    Raises InputError for frames without a pixel.
    """
    if min(h, w) < 1:
        raise InputError(f"The frames are {w}x{h}: expected at least 1 px on each side.")
    picture, region, size = _picture(h, w, wanted, UPSCALE if upscaled else 1, pixel_aspect)
    start = round((h - region[0]) / 2), round((w - region[1]) / 2)
    if upscaled:
        return SizePlan(
            source=(h, w),
            given=(h, w),
            upscaled=(h, w),
            corner=start,
            content=(round(region[0]), round(region[1])),
            picture=picture,
            size=size,
        )
    needed = [min(1.0, p / r / UPSCALE) for p, r in zip(picture, region, strict=True)]
    smallest = max(SMALLEST_SIDE / (n * r) for n, r in zip(needed, region, strict=True))
    scale = [min(1.0, n * max(1.0, smallest)) for n in needed]
    content = [round(UPSCALE * s * r) for s, r in zip(scale, region, strict=True)]
    # Adjusted so that the content is a whole number of pixels once upscaled. A side that is not
    # shrunk stays untouched.
    scale = [
        1.0 if s == 1 else min(1.0, c / r / UPSCALE)
        for s, c, r in zip(scale, content, region, strict=True)
    ]
    given = math.ceil(content[0] / UPSCALE), math.ceil(content[1] / UPSCALE)
    return SizePlan(
        source=(h, w),
        start=start,
        scale=(scale[0], scale[1]),
        given=given,
        upscaled=(UPSCALE * given[0], UPSCALE * given[1]),
        content=(content[0], content[1]),
        picture=picture,
        size=size,
    )


def plan_video(
    h: int, w: int, wanted: OutputSize, when: When, pixel_aspect: float = 1.0
) -> SizePlan:
    """The whole plan for a video of frames (h, w).

    "before": as ``plan_size``. "after": the model gets the frames unchanged. Raises InputError for
    a size below that of the displayed frames or above four times that, and for a crop too small
    for the model.
    """
    if when not in get_args(When):
        raise InputError(f"Resizing is '{when}': expected one of {get_args(When)}.")
    picture, region, size = _picture(h, w, wanted, 1, pixel_aspect)
    shape = (1.0, pixel_aspect if wanted.target == "exact size" else 1.0)
    shown = [r * s for r, s in zip(region, shape, strict=True)]
    # Rounding to even numbers may change a side by one pixel.
    pairs = list(zip(picture, shown, strict=True))
    if any(not s - 1 <= p <= UPSCALE * s + 1 for p, s in pairs):
        zoom = max((p / s for p, s in pairs), key=lambda zoom: abs(math.log(zoom / 2)))
        whole = round(h * shape[0]), round(w * shape[1])
        largest = UPSCALE * whole[0], UPSCALE * whole[1]
        raise InputError(
            f"The output size {_text(size)} is {zoom:.3g} times the input size {_text(whole)}: "
            f"expected 1 to {UPSCALE} times, {_text(whole)} to {_text(largest)}. Choose a size in "
            "this range."
        )
    if when == "after":
        rows, columns = UPSCALE * h, UPSCALE * w
        plan = plan_size(rows, columns, wanted, upscaled=True, pixel_aspect=pixel_aspect)
        return replace(plan, source=(h, w), given=(h, w))
    plan = plan_size(h, w, wanted, pixel_aspect=pixel_aspect)
    if min(plan.given) < SMALLEST_SIDE:
        raise InputError(
            f"With cropping before upscaling to {_text(size)}, the model would get frames of "
            f"{_text(plan.given)}: expected at least {SMALLEST_SIDE} px on each side. Resize "
            "after upscaling instead."
        )
    return plan


def before(frames: Tensor, plan: SizePlan, check_cancelled: Callable[[], None] = ignore) -> Tensor:
    """Frames (t, h, w, c) of the plan's ``source``, cropped and shrunk for the model.

    The picture keeps its exact scale: if its size is not a multiple of 4 once upscaled, the last
    row or column reaches past the picture, and ``after`` cuts that off. Raises InputError for
    frames of another size.
    """
    _check(frames, plan.source, "the plan was made for")
    (y, x), (rows, columns) = plan.start, plan.given
    if plan.scale == (1.0, 1.0):
        return frames[:, y : y + rows, x : x + columns]
    # One more than needed, so that rounding never leaves too few.
    taken = [math.ceil(g / s) + 1 for g, s in zip(plan.given, plan.scale, strict=True)]
    result = frames.new_empty((len(frames), rows, columns, frames.shape[3]))
    for i, frame in enumerate(frames):
        check_cancelled()
        part = frame[y : y + taken[0], x : x + taken[1]].movedim(-1, 0)[None].float()
        missing = (0, taken[1] - part.shape[3], 0, taken[0] - part.shape[2])
        part = F.pad(part, missing, mode="replicate")
        small = F.interpolate(part, scale_factor=plan.scale, mode="bicubic", antialias=True)
        result[i] = small[0, :, :rows, :columns].movedim(0, -1).clamp(0, 1)
    return result


def after(frames: Tensor, plan: SizePlan, check_cancelled: Callable[[], None] = ignore) -> Tensor:
    """Upscaled frames (t, h, w, c) at the finished size; finished frames are returned unchanged.

    Raises InputError for frames of another size than the plan's ``upscaled``.
    """
    if frames.ndim == 4 and tuple(frames.shape[1:3]) == plan.size != plan.upscaled:
        return frames
    _check(frames, plan.upscaled, f"the plan needs frames upscaled from {_text(plan.given)} to")
    (y, x), (rows, columns) = plan.corner, plan.content
    content = frames[:, y : y + rows, x : x + columns]
    if plan.content == plan.picture == plan.size:
        return content
    top, left = ((s - p) // 2 for s, p in zip(plan.size, plan.picture, strict=True))
    bottom, right = top + plan.picture[0], left + plan.picture[1]
    result = frames.new_zeros((len(frames), *plan.size, frames.shape[3]))
    for i, frame in enumerate(content):
        check_cancelled()
        result[i, top:bottom, left:right] = resized(frame, *plan.picture)
    return result


def resized(frame: Tensor, h: int, w: int) -> Tensor:
    """A frame (h0, w0, c) in [0, 1] resized to (h, w, c), averaged over areas where it shrinks."""
    if tuple(frame.shape[:2]) == (h, w):
        return frame
    picture = frame.movedim(-1, 0)[None].float()
    picture = F.interpolate(picture, (h, w), mode="bicubic", antialias=True)
    return picture[0].movedim(0, -1).clamp(0, 1).to(frame)


def _picture(
    h: int, w: int, wanted: OutputSize, base: int, pixel_aspect: float
) -> tuple[Pair, tuple[float, float], Pair]:
    """The picture's size, the region of the frames (h, w) that it shows, and the finished size."""

    def side(pixels: float) -> int:
        return max(2, 2 * round(pixels / 2)) if wanted.even else max(1, round(pixels))

    whole = float(h), float(w)
    if wanted.target != "exact size":
        short = wanted.short_side / min(h, w)
        zoom = wanted.factor / base if wanted.target == "factor" else short
        picture = side(zoom * h), side(zoom * w)
        return picture, whole, picture
    size = side(wanted.height), side(wanted.width)
    shown = h, w * pixel_aspect
    zooms = size[0] / shown[0], size[1] / shown[1]
    if wanted.aspect == "stretch":
        return size, whole, size
    if wanted.aspect == "crop":
        zoom = max(zooms)
        return size, (min(h, size[0] / zoom), min(w, size[1] / zoom / pixel_aspect)), size
    zoom = min(zooms)
    picture = min(size[0], side(zoom * shown[0])), min(size[1], side(zoom * shown[1]))
    return picture, whole, size if wanted.aspect == "pad" else picture


def _text(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"


def _check(frames: Tensor, size: Pair, why: str) -> None:
    if frames.ndim != 4 or tuple(frames.shape[1:3]) != size:
        got = _text(frames.shape[1:3]) if frames.ndim == 4 else tuple(frames.shape)
        raise InputError(
            f"The frames are {got}, but {why} {_text(size)}. Frames and plan must come from the "
            "same 'Output Size': upscale its frames, and connect the result and the plan to "
            "'Finish Output Size'."
        )
