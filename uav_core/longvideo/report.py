"""The report of a run, read when it is over."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

MOST_CUTS = 20
"""The most cuts that the text lists."""


@dataclass
class Report:
    """Numbers and events of one run of a job."""

    output: str = ""
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    """Width and height of the result."""
    resized: str = ""
    """How frames were resized, if the size is not 4x: "resized after from ..."."""
    cuts: list[tuple[int, float]] = field(default_factory=list)
    """First frame and time in seconds of every scene but the first."""
    frames_before: int = 0
    """Frames that earlier runs of the job had finished."""
    frames_made: int = 0
    """Frames that this run made; other runs may have made others at the same time."""
    seconds: float = 0.0
    """Duration of this run."""
    notes: list[str] = field(default_factory=list)
    """Steps down when memory ran out, what is not kept of the source, and the like."""

    @property
    def rate(self) -> float:
        """Frames per second made by this run; 0 if it made none."""
        return self.frames_made / self.seconds if self.seconds > 0 else 0.0

    @property
    def scenes(self) -> int:
        """How many scenes the video has."""
        return len(self.cuts) + 1

    def cuts_text(self) -> str:
        """ "3 scenes, cut at frame 40 (0:01.6), 90 (0:03.6)"; lists the first MOST_CUTS cuts."""
        if not self.cuts:
            return "1 scene, no cuts"
        shown = [
            f"{frame} ({int(at // 60)}:{at % 60:04.1f})" for frame, at in self.cuts[:MOST_CUTS]
        ]
        more = f" and {self.scenes - 1 - len(shown)} more" if self.scenes - 1 > len(shown) else ""
        return f"{self.scenes} scenes, cut at frame {', '.join(shown)}{more}"

    def to_text(self) -> str:
        """The report in a few lines."""
        w, h = self.size
        resized = f", {self.resized}" if self.resized else ""
        lines = [
            f"{os.path.basename(self.output)}: {self.frames} frames of {w}x{h}{resized}.",
            f"{self.cuts_text()}.",
            f"This run: {self.frames_made} frames in {self.seconds:.0f} s"
            + (f", {self.rate:.2f} frames per second." if self.rate else "."),
        ]
        if self.frames_before:
            lines.append(f"{self.frames_before} frames were already finished by an earlier run.")
        others = self.frames - self.frames_before - self.frames_made
        if others > 0:
            lines.append(f"{others} frames were made by other runs at the same time.")
        return "\n".join([*lines, *self.notes])
