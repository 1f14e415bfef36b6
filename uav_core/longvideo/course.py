"""How far a run is, and how long it still takes, by what its stages cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

SAMPLING, DECODING, FLOW = "sampling", "decoding", "flow"

# What a frame of a stage costs beside one of a pass, until it is measured.
GUESSED = {SAMPLING: 1.0, DECODING: 6.0, FLOW: 3.0}


class Course:
    """Work is counted in frames of each stage; of a flow, in pairs.

    What is done takes its part of the way that is left, at what it costs by then. So a better
    measure never brings the share back, and it is at its end when nothing is left.
    """

    def __init__(self, whole: Mapping[str, float]) -> None:
        """``whole``: the frames of every stage, of the whole video."""
        self.whole = dict(whole)
        self.left = dict(whole)
        self.share = 0.0
        """Of the whole that is done; below 1."""
        self._frames: dict[str, int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)

    def measured(self, stage: str) -> bool:
        """Whether pieces of this stage were timed."""
        return self._frames[stage] > 0

    def rate(self, stage: str) -> float:
        """Seconds of one frame, measured or guessed from the stages that were; 0 from none."""
        if self.measured(stage):
            return self._seconds[stage] / self._frames[stage]
        known = sum(GUESSED[name] * frames for name, frames in self._frames.items())
        return GUESSED[stage] * sum(self._seconds.values()) / known if known else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until all is decoded; None before anything was timed."""
        if not any(self._frames.values()):
            return None
        return sum(frames * self.rate(stage) for stage, frames in self.left.items())

    def did(self, stage: str, frames: int, seconds: float | None) -> None:
        """One piece is done; ``seconds`` is None if they tell nothing of others."""
        if seconds is not None:
            self._frames[stage] += frames
            self._seconds[stage] += seconds
        self._come({stage: frames})

    def did_elsewhere(self, share: float) -> None:
        """An earlier or another run has done a share of the whole."""
        self._come({stage: frames * share for stage, frames in self.whole.items()})

    def again(self, share: float) -> None:
        """A share of the frames is sampled again, to get to where a run stopped."""
        for stage in (SAMPLING, FLOW):
            self.left[stage] += share * self.whole[stage]

    def _come(self, done: Mapping[str, float]) -> None:
        for stage, frames in done.items():
            self.left[stage] = max(0.0, self.left[stage] - frames)
        took, ahead = self._cost(done), self._cost(self.left)
        if took > 0:
            # Something is always ahead: what is done more than was counted, and the joining.
            self.share += (1 - self.share) * took / (took + max(ahead, took / 4))

    def _cost(self, frames: Mapping[str, float]) -> float:
        known = any(self._frames.values())
        return sum(
            n * (self.rate(stage) if known else GUESSED[stage]) for stage, n in frames.items()
        )
