"""Progress and live preview of sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_patcher
import latent_preview
import torch
from torch import Tensor

from ...uav_core.callbacks import ignore
from ...uav_core.longvideo.course import FLOW, GUESSED
from ...uav_core.sampling.segments import SEGMENT_LENGTH
from ..base.runtime import progress_bar
from ..model.latent import middle_frame

PAIR = GUESSED[FLOW] / SEGMENT_LENGTH
"""Guessed time for the flow of a pair of frames, in units of one segment's pass."""


class SegmentProgress:
    """Progress of the flow, if any, then of each segment with a preview of its middle frame."""

    def __init__(
        self,
        model: comfy.model_patcher.ModelPatcher,
        steps: int,
        segments: int,
        guidance: float = 1.0,
        on_pass: Callable[[], None] = ignore,
        pairs: int = 0,
    ) -> None:
        """``pairs``: number of frame pairs whose flow is estimated before sampling.

        ``on_pass`` is called when a segment has been predicted, at every step.
        """
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        self.before = math.ceil(pairs * PAIR)
        self.total, self.segments = self.before + steps * segments, segments
        self.done = self.before
        self.guidance, self.on_pass = guidance, on_pass
        self.bar = progress_bar(self.total)

    def flow(self, done: int, total: int) -> None:
        """Report ``done`` of ``total`` flows."""
        self.bar(max(1, self.before * done // total), self.total)

    def segment(self, predicted: Sequence[Tensor]) -> None:
        """Report a segment by its ``predicted`` clean latents (1, 4, n, h, w), positive first."""
        self.done += 1
        self.on_pass()
        self.bar(self.done, self.total, self.preview(guided(predicted, self.guidance)))

    def step(self, step: int, x0: Tensor, x: Tensor, total_steps: int) -> None:
        """Report a step. A clip of one segment runs without windows, so it is reported here."""
        self.done = self.before + (step + 1) * self.segments
        if self.segments == 1:
            self.on_pass()
            self.bar(self.done, self.total, self.preview(x0))

    def preview(self, x0: Tensor) -> Any:
        """The preview that ComfyUI sends to the page, or None where previews are off."""
        if self.previewer is None:
            return None
        return self.previewer.decode_latent_to_preview_image("JPEG", middle_frame(x0)[:1])


def guided(predicted: Sequence[Tensor], guidance: float) -> Tensor:
    """Classifier-free guidance of a positive and a negative prediction, if there are both."""
    if len(predicted) < 2 or guidance == 1:
        return predicted[0]
    return torch.lerp(predicted[1], predicted[0], guidance)
