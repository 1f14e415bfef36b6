"""The plan of a job: which frames each encoded part and each scene holds."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from ..errors import InputError

MOST_FRAMES = 2**31 - 1
MOST_PARTS = 100_000
MOST_SCENES = 100_000


@dataclass(frozen=True)
class JobPlan:
    """Absolute frame ranges of a job.

    ``frames``: of the whole video, at least 1. ``scenes``: consecutive ranges from 0 to
    ``frames``. ``part_length``: frames of every encoded part; the last of a scene may be shorter,
    so that no part is of two scenes.

    Raises InputError for numbers that fit no video.
    """

    frames: int
    part_length: int
    scenes: tuple[range, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "scenes", tuple(self.scenes))
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
            if scene.start != at or scene.step != 1 or len(scene) < 1:
                at = -1
                break
            at = scene.stop
        if not self.scenes or at != self.frames or self.scenes[-1].stop != at:
            raise InputError(
                f"The scenes end at frame {at}: expected ranges that follow each other from 0 to "
                f"{self.frames}, none of them empty."
            )
        if self.parts > MOST_PARTS:
            raise InputError(
                f"A plan of {self.parts} parts: expected at most {MOST_PARTS}. Use longer parts."
            )

    @cached_property
    def _first_parts(self) -> tuple[int, ...]:
        """The first part of every scene, and at last how many parts there are."""
        counts = (-(-len(scene) // self.part_length) for scene in self.scenes)
        return tuple(accumulate(counts, initial=0))

    @property
    def parts(self) -> int:
        """How many encoded parts the video has."""
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
