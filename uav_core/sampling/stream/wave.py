"""The frames under way: begun, and not yet returned to the caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .frames import HeldFrames
from .params import StreamParams
from .sweep import Motions, Sweep


@dataclass(eq=False)
class Step:
    """How far one step of the run has come in the scene."""

    sweep: Sweep | None
    """Only at steps that propagate."""
    segment: int = 0
    """The number of the segment to run next."""
    latents: HeldFrames = field(default_factory=HeldFrames)
    """Frames from the start of that segment on."""
    pending: Tensor | None = None
    """(1, c, n, h, w), the predictions of frames that this segment shares with earlier ones."""


class Wave:
    """All frames under way, step by step."""

    def __init__(self, params: StreamParams, motions: Motions) -> None:
        self.params, self.motions = params, motions
        chosen = params.propagation_steps if params.propagates else ()
        self.steps = [Step(Sweep(params) if i in chosen else None) for i in range(params.steps)]
        self.finished = HeldFrames()
        """Frames that are done and not yet fetched."""

    @property
    def held(self) -> int:
        """Latent frames held, without finished ones."""
        count = 0
        for step in self.steps:
            count += len(step.latents)
            count += 0 if step.pending is None else step.pending.shape[2]
            if step.sweep is not None:
                count += len(step.sweep.x0) + len(step.sweep.eps)
                count += step.sweep.carried is not None
        return count

    def after(self, i: int) -> HeldFrames:
        """The queue for frames that have finished step ``i``."""
        return self.finished if i + 1 == len(self.steps) else self.steps[i + 1].latents

    def shared(self, i: int) -> int:
        """Frames that the next segment of step ``i`` shares with the one before."""
        plan, segment = self.params.plan, self.steps[i].segment
        if not 0 < segment < len(plan):
            return 0
        return plan[segment - 1].stop - plan[segment].start

    def segment_ready(self, i: int) -> bool:
        """Whether step ``i`` has all frames of its next segment."""
        step, plan = self.steps[i], self.params.plan
        if step.segment == len(plan):
            return False
        return i == 0 or step.latents.stop >= plan[step.segment].stop

    def segment_start(self, i: int) -> int:
        """The first frame that step ``i`` has not finished."""
        plan, segment = self.params.plan, self.steps[i].segment
        return plan[segment].start if segment < len(plan) else self.params.frames

    def first_pair(self) -> int:
        """The first pair of frames whose flow a sweep still needs."""
        return max(0, min((s.sweep.x0.first for s in self.steps if s.sweep), default=0) - 1)
