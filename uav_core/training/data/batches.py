"""Batches of clean and degraded clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError
from .degrade import Range, blur, degrade


class Source(Protocol):
    """A source of clean clips; see clips.ClipSource."""

    def sample(self, rng: np.random.Generator, frames: int, height: int, width: int) -> Tensor:
        """(3, frames, height, width) in [-1, 1]."""
        ...


@dataclass(frozen=True)
class BatchParams:
    """Sizes of a batch."""

    clips: int = 4
    frames: int = 1
    size: int = 96
    """Side of the clean clips in pixels; a multiple of 32 divides evenly at every U-Net level."""

    def __post_init__(self) -> None:
        """Raise InputError for numbers below 1, or a side that no clip can have."""
        if min(self.clips, self.frames) < 1 or self.size < 8 or self.size % 8:
            raise InputError(
                f"{self.clips} clips of {self.frames} frames and {self.size} pixels a side: "
                "expected 1 or more of each, and a side that is a multiple of 8."
            )


def clean_batch(source: Source, rng: np.random.Generator, p: BatchParams) -> Tensor:
    """Clean clips (clips, 3, frames, size, size) in [-1, 1]."""
    clips = [source.sample(rng, p.frames, p.size, p.size) for _ in range(p.clips)]
    return torch.stack(clips).float()


def paired_batch(source: Source, rng: np.random.Generator, p: BatchParams) -> tuple[Tensor, Tensor]:
    """A clean batch, and the degraded one at a quarter of its size."""
    clean = clean_batch(source, rng, p)
    low_res = torch.stack([degrade(clip, rng) for clip in clean])
    return clean, low_res


POOR_BLUR: Range = (0.8, 2.0)


def poor(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """The target of the negative text: the clip (3, t, h, w), blurred and a little noisy."""
    frames = clip.transpose(0, 1)
    frames = blur(frames, rng, POOR_BLUR, 0.0)
    noise = torch.randn_like(frames)
    return (frames + noise * rng.uniform(0, 0.03)).clamp(-1, 1).transpose(0, 1)
