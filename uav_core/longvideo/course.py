"""The progress of a run and its remaining time, from the measured cost of its stages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

SAMPLING, DECODING, FLOW = "sampling", "decoding", "flow"

# Cost of a frame in each stage, relative to sampling, until it is measured.
GUESSED = {SAMPLING: 1.0, DECODING: 6.0, FLOW: 3.0}


class Course:
    """Counts the work of each stage in frames; of flow, in pairs.

    A finished piece adds to ``share`` its part of the remaining cost, as known at that time. So a
    better measurement never lowers ``share``, and it is near 1 when nothing is left.
    """

    def __init__(self, whole: Mapping[str, float]) -> None:
        """``whole`` has the frames of every stage for the whole video."""
        self.whole = dict(whole)
        self.left = dict(whole)
        self.share = 0.0
        """The share of the work that is done; below 1."""
        self._frames: dict[str, int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)

    def measured(self, stage: str) -> bool:
        """Whether pieces of this stage were timed."""
        return self._frames[stage] > 0

    def rate(self, stage: str) -> float:
        """Seconds a frame: measured, or guessed from measured stages; 0 if none was measured."""
        if self.measured(stage):
            return self._seconds[stage] / self._frames[stage]
        known = sum(GUESSED[name] * frames for name, frames in self._frames.items())
        return GUESSED[stage] * sum(self._seconds.values()) / known if known else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until all frames are decoded; None before anything was timed."""
        if not any(self._frames.values()):
            return None
        return sum(frames * self.rate(stage) for stage, frames in self.left.items())

    def did(self, stage: str, frames: int, seconds: float | None) -> None:
        """Count one finished piece; ``seconds`` is None if its time is no measure for others."""
        if seconds is not None:
            self._frames[stage] += frames
            self._seconds[stage] += seconds
        self._come({stage: frames})

    def did_elsewhere(self, share: float) -> None:
        """Count a share of the whole that an earlier or another run has done."""
        self._come({stage: frames * share for stage, frames in self.whole.items()})

    def again(self, share: float) -> None:
        """Add work: a share of the frames is sampled again, to reach the place of a stop."""
        for stage in (SAMPLING, FLOW):
            self.left[stage] += share * self.whole[stage]

    def _come(self, done: Mapping[str, float]) -> None:
        for stage, frames in done.items():
            self.left[stage] = max(0.0, self.left[stage] - frames)
        took, ahead = self._cost(done), self._cost(self.left)
        if took > 0:
            # Some work is always assumed to be left: uncounted work, and joining the parts.
            self.share += (1 - self.share) * took / (took + max(ahead, took / 4))

    def _cost(self, frames: Mapping[str, float]) -> float:
        known = any(self._frames.values())
        return sum(
            n * (self.rate(stage) if known else GUESSED[stage]) for stage, n in frames.items()
        )
