"""What becomes of every frame's size on its way into a run, and on its way to the encoder."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from torch import Tensor

from ...frames.output_size import SizePlan, after, before, plan_video
from ...video import EncodeParams, VideoInfo
from ..params import LongVideoParams


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
