"""Queues of frames, or of pairs of frames, by their number in the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor


def separate(clip: Tensor) -> list[Tensor]:
    """The frames of (1, c, n, h, w), each (1, c, h, w) in memory of its own.

    A view would keep the whole clip alive for as long as its last frame is needed.
    """
    return [frame.clone(memory_format=torch.contiguous_format) for frame in clip.unbind(2)]


T = TypeVar("T")


class Held(Generic[T]):
    """A queue of consecutive items: new ones are added at the end, used ones leave at the start."""

    def __init__(self, first: int = 0, items: Sequence[T] = ()) -> None:
        self.first, self.items = first, list(items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def stop(self) -> int:
        """The number of the item that is added next."""
        return self.first + len(self.items)

    def between(self, start: int, stop: int) -> list[T]:
        """The items from ``start`` to ``stop`` (exclusive)."""
        if not self.first <= start <= stop <= self.stop:
            raise IndexError(
                f"items {start} to {stop} are not available, only {self.first} to {self.stop}"
            )
        return self.items[start - self.first : stop - self.first]

    def append(self, items: Sequence[T]) -> None:
        """Add the items that follow."""
        self.items.extend(items)

    def drop(self, stop: int) -> None:
        """Remove the items before ``stop``."""
        count = min(max(stop - self.first, 0), len(self.items))
        del self.items[:count]
        self.first += count


class HeldFrames(Held[Tensor]):
    """A queue of frames, (1, c, h, w) each."""

    def stack(self, start: int, stop: int) -> Tensor:
        """(1, c, stop - start, h, w), a copy."""
        return torch.stack(self.between(start, stop), dim=2)
