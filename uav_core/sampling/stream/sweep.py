"""Propagation of a scene whose end is not there yet.

The forward sweep only looks back: it carries its last frame along. The backward sweep comes from
the future. It is run for one block of frames at a time, beginning ``look_ahead`` frames behind the
block as if the scene ended there. Blocks lie at fixed places, so the result does not depend on
when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError
from ..propagation import PropagationParams, consistent, warp
from .frames import HeldFrames
from .params import BLOCK, StreamParams

Flow = Callable[[int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Motion:
    """The motion from frame i to i + 1 and back, and where it can be trusted."""

    forward: Tensor
    backward: Tensor
    """(1, 2, h, w), in pixels."""
    forward_ok: Tensor
    backward_ok: Tensor
    """(1, 1, h, w) bool."""

    @classmethod
    def of(cls, forward: Tensor, backward: Tensor, params: PropagationParams) -> Motion:
        """Checked once: at every step and in every block the answer is the same."""
        ahead, behind = (
            consistent(a, b, params) for a, b in ((forward, backward), (backward, forward))
        )
        return cls(forward, backward, ahead, behind)


class Motions:
    """The motion of consecutive pairs, asked for in order and dropped behind the last sweep."""

    def __init__(self, params: StreamParams, flow: Flow | None, device: torch.device) -> None:
        self.params, self.flow, self.device = params, flow, device
        self.first, self.pairs = 0, list[Motion]()

    def __getitem__(self, pair: int) -> Motion:
        if pair < self.first:
            raise IndexError(f"pair {pair} is gone; the first that is left is {self.first}")
        return self.pairs[pair - self.first]

    def fetch(self, stop: int) -> None:
        """Have every pair before ``stop``."""
        while self.first + len(self.pairs) < stop:
            assert self.flow is not None
            pair = self.first + len(self.pairs)
            both, shape = self.flow(pair), (1, 2, self.params.h, self.params.w)
            for name, flow in zip(("forward", "backward"), both, strict=True):
                if tuple(flow.shape) != shape:
                    raise InputError(
                        f"The {name} flow of pair {pair} is {tuple(flow.shape)}: expected {shape}."
                    )
            forward, backward = (flow.to(self.device, torch.float32) for flow in both)
            self.pairs.append(Motion.of(forward, backward, self.params.propagation))

    def drop(self, stop: int) -> None:
        """Let go of the pairs before ``stop``."""
        count = max(stop - self.first, 0)
        del self.pairs[:count]
        self.first += count

    def stack(self) -> Tensor | None:
        """(1, 4, n, h, w), forward and backward flows of the pairs held."""
        if not self.pairs:
            return None
        return torch.stack([torch.cat((m.forward, m.backward), 1) for m in self.pairs], dim=2)

    def restore(self, first: int, flows: Sequence[Tensor]) -> None:
        """Hold what ``stack`` gave, each (1, 4, h, w)."""
        pairs = list[Motion]()
        for both in flows:
            forward, backward = (flow.contiguous() for flow in both.chunk(2, dim=1))
            pairs.append(Motion.of(forward, backward, self.params.propagation))
        self.first, self.pairs = first, pairs


class Sweep:
    """Both sweeps at one step: clean latents come in in order and leave propagated."""

    def __init__(self, params: StreamParams) -> None:
        self.params = params
        self.x0, self.eps = HeldFrames(), HeldFrames()
        self.carried: Tensor | None = None
        """(1, c, h, w), the last propagated frame."""

    @property
    def block(self) -> range:
        """The frames to be propagated next; empty at the end of the scene."""
        return range(self.x0.first, min(self.x0.first + BLOCK, self.params.frames))

    @property
    def last(self) -> int:
        """The frame at which the backward sweep of the block begins."""
        return min(self.block.stop - 1 + self.params.look_ahead, self.params.frames - 1)

    @property
    def ready(self) -> bool:
        """Whether all that the next block needs has come in."""
        return bool(self.block) and self.x0.stop > self.last

    def run(self, motions: Motions) -> list[Tensor]:
        """The propagated frames of the next block. Changes nothing before ``finish``."""
        motions.fetch(self.last)
        block, frame, back = self.block, self.x0[self.last], dict[int, Tensor]()
        for i in range(self.last, block.start - 1, -1):
            if i < self.last:
                motion = motions[i]
                frame = self._mix(self.x0[i], frame, motion.forward, motion.forward_ok)
            if i in block:
                back[i] = frame
        done, previous = list[Tensor](), self.carried
        for i in block:
            frame = back[i]
            if previous is not None:
                motion = motions[i - 1]
                frame = self._mix(frame, previous, motion.backward, motion.backward_ok)
            done.append(frame)
            previous = frame
        return done

    def finish(self, done: list[Tensor]) -> None:
        """Let go of the block whose propagated frames are ``done``."""
        self.carried = done[-1]
        stop = self.block.stop
        self.x0.drop(stop)
        self.eps.drop(stop)

    def _mix(self, own: Tensor, neighbour: Tensor, flow: Tensor, ok: Tensor) -> Tensor:
        """The frame with the neighbour's share, as in ``propagation.propagate``."""
        strength = self.params.propagation.strength
        taken = warp(neighbour, flow, "nearest")
        return torch.where(ok, strength * taken + (1 - strength) * own, own)
