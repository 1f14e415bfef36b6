"""The plan of a job: which frames each encoded part and each scene holds."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from ..errors import InputError
from .plain import Count

MOST_FRAMES = 2**31 - 1
MOST_PARTS = MOST_SCENES = 100_000

# A part's record in the manifest and its backup, and in a third file while one is written.
_BYTES_PER_PART = 3 * 256
# Two states are kept while a third is written.
_STATES = 3


@dataclass(frozen=True)
class JobPlan:
    """Absolute frame ranges of a job.

    ``frames``: of the whole video, at least 1. ``scenes``: consecutive ranges from 0 to
    ``frames``. ``part_length``: frames of every encoded part; the last part of a scene may be
    shorter, so that no part belongs to two scenes.

    Raises InputError for impossible numbers.
    """

    frames: Count
    part_length: Count
    scenes: tuple[range, ...]

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= MOST_FRAMES or self.part_length < 1:
            raise InputError(
                f"A plan of {self.frames} frames in parts of {self.part_length}: expected "
                f"1 to {MOST_FRAMES} frames and at least 1 in a part."
            )
        if len(self.scenes) > MOST_SCENES:
            raise InputError(
                f"A plan of {len(self.scenes)} scenes: expected at most {MOST_SCENES}. Raise the "
                "threshold of the cuts or the shortest length of a scene."
            )
        at = 0
        for scene in self.scenes:
            if not scene or scene != range(at, scene.stop):
                raise InputError(
                    f"A scene is {scene}: expected at least one frame, starting at frame {at}."
                )
            at = scene.stop
        if at != self.frames:
            raise InputError(f"The scenes end at frame {at}: expected {self.frames}.")
        if self.parts > MOST_PARTS:
            raise InputError(
                f"A plan of {self.parts} parts: expected at most {MOST_PARTS}. Use longer parts."
            )

    @cached_property
    def _first_parts(self) -> tuple[int, ...]:
        """The first part of every scene, followed by the number of all parts."""
        counts = (-(-len(scene) // self.part_length) for scene in self.scenes)
        return tuple(accumulate(counts, initial=0))

    @property
    def parts(self) -> int:
        """The number of encoded parts of the video."""
        return self._first_parts[-1]

    def parts_of(self, scene: int) -> range:
        """The parts of scene ``scene`` (from 0)."""
        return range(self._first_parts[scene], self._first_parts[scene + 1])

    def part(self, index: int) -> range:
        """Frames of part ``index`` (from 0); InputError outside the plan."""
        if not 0 <= index < self.parts:
            raise InputError(f"Part {index}: the plan has parts 0 to {self.parts - 1}.")
        number = bisect_right(self._first_parts, index) - 1
        scene = self.scenes[number]
        start = scene.start + (index - self._first_parts[number]) * self.part_length
        return range(start, min(start + self.part_length, scene.stop))

    def scene_at(self, frame: int) -> int:
        """Index of the scene that holds ``frame``; InputError outside the plan."""
        if not 0 <= frame < self.frames:
            raise InputError(f"Frame {frame}: the plan has frames 0 to {self.frames - 1}.")
        return bisect_right(self.scenes, frame, key=lambda scene: scene.start) - 1

    def check_state(self, scene: int, frames_done: int) -> None:
        """Raise InputError unless there is this scene and ``frames_done`` lies within it."""
        if not 0 <= scene < len(self.scenes):
            raise InputError(f"Scene {scene}: the plan has 0 to {len(self.scenes) - 1}.")
        start, stop = self.scenes[scene].start, self.scenes[scene].stop
        if not start <= frames_done <= stop:
            raise InputError(
                f"State at frame {frames_done} of scene {scene}: expected a frame from {start} to "
                f"{stop}."
            )


def disk_needed(
    plan: JobPlan, bytes_per_frame: float, *, frames_done: int = 0, state_bytes: int = 0
) -> int:
    """Bytes that a job still needs at its peak: parts, states, and the output joined from parts.

    ``bytes_per_frame`` is that of the encoded video; ``frames_done`` are already in parts on the
    disk; ``state_bytes`` is the size of one sampler state. InputError for numbers out of range.
    """
    if bytes_per_frame < 0 or state_bytes < 0 or not 0 <= frames_done <= plan.frames:
        raise InputError(
            f"{bytes_per_frame} bytes per frame, {state_bytes} bytes per state, {frames_done} of "
            f"{plan.frames} frames done: expected no negative numbers, and not more frames done "
            "than the plan has."
        )
    video = (2 * plan.frames - frames_done) * bytes_per_frame
    return int(video) + 1 + _STATES * state_bytes + _BYTES_PER_PART * plan.parts
