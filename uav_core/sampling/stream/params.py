"""What a stream is made for: the scene, the run, and how exact propagation has to be."""

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
    """Frames that a backward sweep starts early, so that it errs by at most ``tolerance``.

    Every frame passes on ``strength`` of an error, so n frames leave strength**n of it. Never
    more than LONGEST_LOOK_AHEAD, which is reached at strengths above 0.8: see
    ``StreamParams.propagation_error`` for what is left then.
    """
    if strength == 0:
        return 0
    if strength == 1:
        return LONGEST_LOOK_AHEAD
    return min(LONGEST_LOOK_AHEAD, max(0, math.ceil(math.log(tolerance) / math.log(strength))))


@dataclass(frozen=True)
class StreamParams:
    """One scene and how to denoise it. Raises InputError for values that cannot be."""

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
    """Error of the backward sweep, as a share of the latent's range, to choose its look-ahead."""

    def __post_init__(self) -> None:
        schedule.timesteps(self.steps)
        if min(self.h, self.w, self.channels) < 1:
            raise InputError(
                f"A latent of {self.channels} channels and {self.h}x{self.w}: expected 1 or more."
            )
        check_steps(self.propagation_steps, self.steps)
        if not 0 < self.tolerance < 1:
            raise InputError(f"A tolerance of {self.tolerance}: expected more than 0, under 1.")
        _ = self.plan  # which checks frames, length and overlap

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
        """The most by which one propagation differs from that over the whole scene.

        As a share of the range of the predicted clean latent, 0 included in that range. 0 for
        scenes that the first look-ahead reaches the end of, and without propagation. The forward
        sweep is exact and adds nothing.
        """
        strength, reach = self.propagation.strength, BLOCK + self.look_ahead
        if not self.propagates or strength == 0 or self.frames <= reach:
            return 0.0
        return strength**self.look_ahead

    @property
    def state_bytes(self) -> int:
        """An upper guess of a saved state: clean latents and noise estimates, in fp32."""
        return self.most_held * 2 * 4 * self.channels * self.h * self.w

    @property
    def most_held(self) -> int:
        """Frames of a latent that are held between two passes, at the most.

        At every step less than a segment and the frames it shares with the one before; at every
        propagating step the sweep's reach, in clean latents and in noise estimates; and what one
        pass has just added. The scene's length is not in it. Finished frames that were not yet
        fetched come on top, and so do the flows, of a smaller number of pairs.
        """
        length, reach = self.segment_length, BLOCK + self.look_ahead
        sweeping = len(set(self.propagation_steps)) if self.propagates else 0
        steps = self.steps * (length - 1 + self.overlap)
        return steps + sweeping * (2 * reach + BLOCK) + 4 * length
