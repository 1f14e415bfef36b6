"""Frames under way, by their number in the scene."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def separate(clip: Tensor) -> list[Tensor]:
    """The frames of (1, c, n, h, w), each (1, c, h, w) in memory of its own.

    A view would keep the whole clip alive for as long as its last frame is needed.
    """
    return [frame.clone(memory_format=torch.contiguous_format) for frame in clip.unbind(2)]


class HeldFrames:
    """Consecutive frames; new ones come in at the end, used ones leave at the start."""

    def __init__(self, first: int = 0, frames: Sequence[Tensor] = ()) -> None:
        self.first, self.frames = first, list(frames)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, frame: int) -> Tensor:
        if not self.first <= frame < self.stop:
            raise IndexError(f"frame {frame} of {self.first} to {self.stop - 1}")
        return self.frames[frame - self.first]

    @property
    def stop(self) -> int:
        """The number of the frame that comes in next."""
        return self.first + len(self.frames)

    def stack(self, start: int, stop: int) -> Tensor:
        """(1, c, stop - start, h, w), a copy."""
        return torch.stack([self[frame] for frame in range(start, stop)], dim=2)

    def append(self, frames: Sequence[Tensor]) -> None:
        """Take in the frames that follow."""
        self.frames.extend(frames)

    def drop(self, stop: int) -> None:
        """Let go of the frames before ``stop``."""
        count = min(max(stop - self.first, 0), len(self.frames))
        del self.frames[:count]
        self.first += count
