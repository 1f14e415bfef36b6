"""Propagation in a scene whose last frames are not known yet.

The forward sweep only looks back: it carries its last frame along. The backward sweep needs later
frames. It runs for one block of frames at a time, beginning ``look_ahead`` frames after the block
as if the scene ended there. Blocks have fixed places, so the result does not depend on when it is
asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...errors import InputError
from ..propagation import PairMotion, sweep_backward, sweep_forward
from .frames import Held, HeldFrames
from .params import BLOCK, StreamParams

Flow = Callable[[int], tuple[Tensor, Tensor]]


class Motions(Held[PairMotion]):
    """The motions of consecutive pairs, requested in order and dropped after the last sweep."""

    def __init__(self, params: StreamParams, flow: Flow | None, device: torch.device) -> None:
        super().__init__()
        self.params, self.flow, self.device = params, flow, device

    def between(self, start: int, stop: int) -> list[PairMotion]:
        """The motions of pairs ``start`` to ``stop`` (exclusive); new ones are requested first."""
        while self.stop < stop:
            assert self.flow is not None
            both, shape = self.flow(self.stop), (1, 2, self.params.h, self.params.w)
            for name, flow in zip(("forward", "backward"), both, strict=True):
                if tuple(flow.shape) != shape:
                    raise InputError(
                        f"The {name} flow of pair {self.stop} is {tuple(flow.shape)}: expected "
                        f"{shape}."
                    )
            self.append([self._motion(*both)])
        return super().between(start, stop)

    def _motion(self, forward: Tensor, backward: Tensor) -> PairMotion:
        ahead, back = (flow.to(self.device, torch.float32) for flow in (forward, backward))
        return PairMotion.of(ahead, back, self.params.propagation)

    def stack(self) -> Tensor | None:
        """(1, 4, n, h, w), forward and backward flows of the pairs held."""
        if not self.items:
            return None
        return torch.stack([torch.cat((m.ahead.flow, m.back.flow), 1) for m in self.items], dim=2)

    def restore(self, first: int, flows: Sequence[Tensor]) -> None:
        """Take the flows that ``stack`` returned, each (1, 4, h, w), from pair ``first`` on."""
        halves = ((flow.contiguous() for flow in both.chunk(2, dim=1)) for both in flows)
        self.first, self.items = first, [self._motion(*both) for both in halves]


class Sweep:
    """Both sweeps at one step: clean latents enter in order and leave propagated."""

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
        """Whether all frames that the next block needs have come in."""
        return bool(self.block) and self.x0.stop > self.last

    def run(self, motions: Motions) -> list[Tensor]:
        """The propagated frames of the next block. Changes nothing before ``finish``."""
        block, strength = self.block, self.params.propagation.strength
        seen = self.x0.between(block.start, self.last + 1)
        swept = sweep_backward(seen, motions.between(block.start, self.last), strength)
        first = block.start if self.carried is None else block.start - 1
        between = motions.between(first, block.stop - 1)
        return sweep_forward(swept[: len(block)], between, strength, self.carried)

    def finish(self, done: list[Tensor]) -> None:
        """Drop the block whose propagated frames are ``done``."""
        self.carried = done[-1]
        stop = self.block.stop
        self.x0.drop(stop)
        self.eps.drop(stop)
