"""Parameters of a stream: the scene, the run, and how exact propagation has to be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from ...errors import InputError
from .. import schedule
from ..propagation import PropagationParams, check_steps
from ..segments import OVERLAP, SEGMENT_LENGTH, Segment, plan_segments

BLOCK = 8
"""Frames that one backward sweep finishes; blocks count from the scene's first frame."""
LONGEST_LOOK_AHEAD = 64
TOLERANCE = 1e-6


def look_ahead(strength: float, tolerance: float = TOLERANCE) -> int:
    """Frames beyond its block at which a backward sweep starts, to err by at most ``tolerance``.

    Every frame passes on ``strength`` of an error, so n frames leave strength**n of it. The result
    is at most LONGEST_LOOK_AHEAD, which is reached at strengths above 0.8: see
    ``StreamParams.propagation_error`` for the error that is left then.
    """
    if strength == 0:
        return 0
    if strength == 1:
        return LONGEST_LOOK_AHEAD
    return min(LONGEST_LOOK_AHEAD, max(0, math.ceil(math.log(tolerance) / math.log(strength))))


@dataclass(frozen=True)
class StreamParams:
    """One scene and how to denoise it. Raises InputError for impossible values."""

    frames: int
    """Frames of the scene; its last segment is moved back to end there."""
    h: int
    w: int
    channels: int = 4
    steps: int = 30
    segment_length: int = SEGMENT_LENGTH
    overlap: int = OVERLAP
    propagation_steps: tuple[int, ...] = ()
    """0-based, in any order."""
    propagation: PropagationParams = field(default_factory=PropagationParams)
    tolerance: float = TOLERANCE
    """Error allowed to the backward sweep, as a share of the latent's range; sets look_ahead."""

    def __post_init__(self) -> None:
        schedule.timesteps(self.steps)
        if min(self.h, self.w, self.channels) < 1:
            raise InputError(
                f"A latent of {self.channels} channels and {self.h}x{self.w}: expected 1 or more "
                "of each."
            )
        check_steps(self.propagation_steps, self.steps)
        if not 0 < self.tolerance < 1:
            raise InputError(
                f"The tolerance is {self.tolerance}: expected more than 0 and less than 1."
            )
        _ = self.plan  # Making the plan checks frames, length and overlap.

    @cached_property
    def plan(self) -> tuple[Segment, ...]:
        """The segments of the scene, the same as for the clip at once."""
        return plan_segments(self.frames, self.segment_length, self.overlap)

    @property
    def propagates(self) -> bool:
        """Whether there is a step to propagate at, and a neighbour to take from."""
        return bool(self.propagation_steps) and self.frames > 1

    @property
    def look_ahead(self) -> int:
        """Frames beyond a block that its backward sweep sees."""
        return look_ahead(self.propagation.strength, self.tolerance)

    @property
    def propagation_error(self) -> float:
        """The most by which one propagation differs from one over the whole scene.

        It is a share of the range of the predicted clean latent, 0 included in that range. It is 0
        without propagation, and for scenes whose end the first look-ahead reaches. The forward
        sweep is exact and adds nothing.
        """
        strength, reach = self.propagation.strength, BLOCK + self.look_ahead
        if not self.propagates or strength == 0 or self.frames <= reach:
            return 0.0
        return strength**self.look_ahead

    @property
    def state_bytes(self) -> int:
        """An upper estimate of a saved state: clean latents and noise estimates, in fp32."""
        return self.most_held * 2 * 4 * self.channels * self.h * self.w

    @property
    def most_held(self) -> int:
        """The most latent frames held between two passes, whatever the scene's length.

        Every step holds less than a segment and the frames it shares with the one before; every
        propagating step holds the sweep's reach, in clean latents and in noise estimates; and one
        pass has just added its frames. Finished frames not yet fetched are not counted, nor are
        the flows, of a smaller number of pairs.
        """
        length, reach = self.segment_length, BLOCK + self.look_ahead
        sweeping = len(set(self.propagation_steps)) if self.propagates else 0
        steps = self.steps * (length - 1 + self.overlap)
        return steps + sweeping * (2 * reach + BLOCK) + 4 * length
