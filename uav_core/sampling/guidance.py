"""The part of a run in which classifier-free guidance is used (Kynkaanniemi et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class GuidanceRange:
    """Guides the steps that begin at a share of the run from ``start`` to ``end`` (exclusive).

    Other steps use the positive text alone, as with guidance 1, which takes half the time.
    Raises InputError unless 0 <= start <= end <= 1.
    """

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise InputError(
                f"The guidance range is {self.start} to {self.end}: expected two numbers from 0 "
                "to 1, the first not larger than the second. 0 to 1 guides every step."
            )

    @property
    def is_whole(self) -> bool:
        """Whether every step is guided."""
        return (self.start, self.end) == (0, 1)

    def covers(self, step: int, steps: int) -> bool:
        """Whether the 0-based ``step`` of a run of ``steps`` is guided."""
        return self.start <= step / steps < self.end

    def count(self, steps: int) -> int:
        """How many steps of a run are guided."""
        return sum(self.covers(step, steps) for step in range(steps))


WHOLE_RUN = GuidanceRange()
