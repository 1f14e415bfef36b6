"""Named settings between fast and careful, for the included weights.

Chosen from the curve in docs/benchmarks.md (``scripts/quality_per_second.py``). The authors'
weights have not been measured, so there are none for them: keep to 30 steps and guidance 6 there.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import included
from .guidance import WHOLE_RUN, GuidanceRange


@dataclass(frozen=True)
class QualityPreset:
    """Settings of one run."""

    steps: int
    """DDIM steps."""
    guidance: float = included.GUIDANCE
    guided: GuidanceRange = WHOLE_RUN
    propagated: int = included.PROPAGATED
    """At so many of the last steps the latent is propagated."""

    @property
    def propagation_steps(self) -> tuple[int, ...]:
        """0-based."""
        return tuple(range(max(0, self.steps - self.propagated), self.steps))


PRESETS = {
    "Draft": QualityPreset(steps=3),
    "Balanced": QualityPreset(steps=6),
    "Best": QualityPreset(steps=10),
}
"""From fast to careful."""
