"""What a run did, to be read when it is over."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


@dataclass
class Report:
    """Numbers and events of one run of a job."""

    output: str = ""
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    """Width and height of the result."""
    scenes: int = 0
    frames_before: int = 0
    """Frames that earlier runs of the job had finished."""
    frames_made: int = 0
    """Frames that this run made; others may have been made at the same time by other runs."""
    seconds: float = 0.0
    """Of this run."""
    notes: list[str] = field(default_factory=list)
    """Steps down for want of memory, damaged parts made anew, and the like."""

    @property
    def rate(self) -> float:
        """Frames per second made by this run; 0 if it made none."""
        return self.frames_made / self.seconds if self.seconds > 0 else 0.0

    def to_text(self) -> str:
        """The report in a few lines."""
        w, h = self.size
        scenes = f"{self.scenes} scene{'s' * (self.scenes != 1)}"
        lines = [
            f"{os.path.basename(self.output)}: {self.frames} frames of {w}x{h} in {scenes}.",
            f"This run: {self.frames_made} frames in {self.seconds:.0f} s"
            + (f", {self.rate:.2f} frames per second." if self.rate else "."),
        ]
        if self.frames_before:
            lines.append(f"{self.frames_before} frames were there from an earlier run.")
        others = self.frames - self.frames_before - self.frames_made
        if others > 0:
            lines.append(f"{others} frames were made by other runs at the same time.")
        return "\n".join([*lines, *self.notes])
