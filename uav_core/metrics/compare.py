"""Several versions of one clip, measured in the same way, as a table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ..callbacks import Progress, ignore
from ..errors import InputError, MissingPackageError
from ..flow.builtin import BuiltinFlow
from .clips import check_alike
from .fidelity import fidelity
from .joints import temporal_jump
from .motion import Motion, estimate_motion, warping_error
from .views import detail


@dataclass(frozen=True)
class Measure:
    """A column of the table."""

    title: str
    better: str
    """The better direction or the best value; empty if there is none."""
    digits: int


MEASURES = {
    "warping_error": Measure("E*warp", "lower", 3),
    "detail": Measure("detail", "", 2),
    "temporal_jump": Measure("time joints", "near 1", 2),
    "psnr": Measure("PSNR dB", "higher", 2),
    "ssim": Measure("SSIM", "higher", 4),
    "haarpsi": Measure("HaarPSI", "higher", 4),
    "gmsd": Measure("GMSD", "lower", 4),
}
"""The measures by their names in the rows. warping_error and detail are in thousandths."""


@dataclass(frozen=True)
class Comparison:
    """The table: a row of numbers for every clip, by the names in MEASURES."""

    rows: dict[str, dict[str, float]]
    motion_of: str | None
    """The clip whose motion the warping error assumes; None if it was not measured."""
    notes: tuple[str, ...] = ()
    """The share of pixels that the warping error covers; what could not be measured, and why."""

    def cells(self) -> list[list[str]]:
        """The table as texts: titles, the direction that is better, and a line for every clip."""
        names = [name for name in MEASURES if any(name in row for row in self.rows.values())]
        table = [["", *(MEASURES[name].title for name in names)]]
        table.append(["better", *(MEASURES[name].better for name in names)])
        for clip, row in self.rows.items():
            table.append([clip, *(_number(row.get(name), MEASURES[name].digits) for name in names)])
        return table

    def explanations(self) -> list[str]:
        """Sentences that belong below the table, notes included."""
        lines = ["E*warp and detail in thousandths of the value range."]
        if self.motion_of is not None:
            lines.append(f"E*warp along the motion of: {self.motion_of}.")
        return [*lines, *self.notes]

    def to_text(self) -> str:
        """The table in aligned columns, and the explanations."""
        table = self.cells()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            ).rstrip()
            for line in table
        ]
        return "\n".join([*lines, "", *self.explanations()])

    def to_json(self) -> str:
        """The rows, `motion_of` and `notes` as JSON; infinity as "inf", NaN as null."""

        def plain(value: float) -> float | str | None:
            return value if math.isfinite(value) else None if math.isnan(value) else "inf"

        rows = {
            clip: {name: plain(value) for name, value in row.items()}
            for clip, row in self.rows.items()
        }
        content = {"rows": rows, "motion_of": self.motion_of, "notes": list(self.notes)}
        return json.dumps(content, indent=2)


def compare(
    clips: Mapping[str, Tensor],
    reference: Tensor | None = None,
    flow_model: nn.Module | None = None,
    *,
    motion: Motion | None = None,
    longest_side: int | None = None,
    borders: Collection[int] = (),
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> Comparison:
    """Measure clips by name, all (1,3,t,h,w) in [-1, 1] of the same length and size.

    The warping error (clips of two frames or more) assumes the motion of the reference, or without
    one that of the FIRST clip for all clips, so that the numbers can be compared: put the input
    first. If `motion` is given, it is used; otherwise `estimate_motion` estimates it with
    `flow_model`, by default the built-in flow. `borders` adds the temporal jump at those frames, a
    reference adds the measures of likeness. Without the package piq, those that need it are left
    out and the notes say so.

    `progress(done, total)` counts flow pairs, both directions, and clips; `check_cancelled()` is
    called in between and may raise. Raises InputError for clips that differ, or no clip.
    """
    if not clips:
        raise InputError("No clip to measure: expected at least one.")
    standard = next(iter(clips.values())) if reference is None else reference
    for clip in clips.values():
        check_alike(clip, standard)
    pairs = 2 * (standard.shape[2] - 1) if motion is None else 0
    total = pairs + len(clips)

    if pairs:
        motion = estimate_motion(
            BuiltinFlow() if flow_model is None else flow_model,
            standard,
            longest_side,
            progress=lambda done, _: progress(done, total),
            check_cancelled=check_cancelled,
        )
    motion_of, notes = None, []
    if motion is not None:
        motion_of = next(iter(clips)) if reference is None else "reference"
        share = float(motion.visible.float().mean())
        notes.append(f"E*warp covers the {share:.0%} of the pixels seen in the next frame too.")

    table: dict[str, dict[str, float]] = {}
    for count, (name, clip) in enumerate(clips.items(), start=1):
        check_cancelled()
        row = table[name] = {}
        if motion is not None:
            row["warping_error"] = 1000 * warping_error(clip, motion, check_cancelled)
        row["detail"] = 1000 * detail(clip)
        if borders:
            row["temporal_jump"] = temporal_jump(clip, borders)
        if reference is not None:
            try:
                row |= fidelity(clip, reference, check_cancelled=check_cancelled)
            except MissingPackageError as error:
                notes.append(str(error))
                row |= fidelity(clip, reference, ("psnr",), check_cancelled)
        progress(pairs + count, total)
    return Comparison(table, motion_of, tuple(dict.fromkeys(notes)))


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
