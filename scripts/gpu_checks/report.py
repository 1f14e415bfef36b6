"""The report, written to disk after every result."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PASS, FAIL, SKIPPED = "PASS", "FAIL", "SKIPPED"
NOT_REACHED, UNDER_WAY = "not reached", "under way when the check was stopped"
TITLE = "# Release check of Upscale-A-Video on this machine"


@dataclass
class Result:
    """The result of an item; its status is SKIPPED until it has ended."""

    name: str
    status: str = SKIPPED
    seconds: float | None = None
    message: str = NOT_REACHED
    values: dict[str, Any] = field(default_factory=dict)
    """Measured values; the names include the unit."""
    traceback: str = ""


@dataclass
class PhaseResult:
    """The items of a phase, and a message as long as it has none."""

    about: str
    message: str = NOT_REACHED
    items: dict[str, Result] = field(default_factory=dict)


class Report:
    """Results by phase, written to report.json and report.md after each one."""

    def __init__(self, folder: Path, options: Mapping[str, Any], phases: Mapping[str, str]) -> None:
        """``phases``: descriptions by name; ``options``: those of the command line."""
        self.folder, self.options = folder, dict(options)
        self.started = time.time()
        self.finished = False
        self.machine: dict[str, Any] = {}
        self.phases = {name: PhaseResult(about) for name, about in phases.items()}

    def plan(self, phase: str, names: Iterable[str]) -> None:
        """Add the items of a phase, which its process reports at its start."""
        for name in names:
            self.phases[phase].items.setdefault(name, Result(name))
        self.write()

    def begin(self, phase: str, name: str) -> None:
        """Record the start of an item."""
        self.phases[phase].items[name] = Result(name, message=UNDER_WAY)
        self.write()

    def end(self, phase: str, result: Result) -> None:
        """Record the result of an item."""
        self.phases[phase].items[result.name] = result
        self.write()

    def leave(self, phase: str, message: str) -> None:
        """Record why the remaining items of a phase are not run."""
        found = self.phases[phase]
        found.message = message
        for item in found.items.values():
            if item.message in (NOT_REACHED, UNDER_WAY):
                item.message = message
        self.write()

    def done(self, phase: str) -> list[str]:
        """The items of a phase that have ended."""
        items = self.phases[phase].items.values()
        return [item.name for item in items if item.message not in (NOT_REACHED, UNDER_WAY)]

    def count(self, status: str) -> int:
        """Number of items with a status; a phase without items counts as one skipped item."""
        items = [item for phase in self.phases.values() for item in phase.items.values()]
        unknown = sum(not phase.items for phase in self.phases.values())
        return sum(item.status == status for item in items) + unknown * (status == SKIPPED)

    def counts(self) -> dict[str, int]:
        """Numbers of items by status."""
        return {status: self.count(status) for status in (PASS, FAIL, SKIPPED)}

    def write(self) -> None:
        """Write both files; each always has either its old or its new content."""
        # Not by uav_core.files, whose import of torch would take longer than all else here.
        for name, text in (("report.json", self.to_json()), ("report.md", self.to_markdown())):
            path = self.folder / name
            partial = path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)

    def to_json(self) -> str:
        """The whole report as JSON."""
        phases = {
            name: {"about": p.about, "items": [asdict(item) for item in p.items.values()]}
            | ({} if p.items else {"message": p.message})
            for name, p in self.phases.items()
        }
        data = {
            "finished": self.finished,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.started)),
            "seconds": round(time.time() - self.started, 1),
            "options": self.options,
            "machine": self.machine,
            "counts": self.counts(),
            "phases": phases,
        }
        return json.dumps(data, indent=1) + "\n"

    def to_markdown(self) -> str:
        """The report without tracebacks as Markdown."""
        counts = ", ".join(f"{number} {status}" for status, number in self.counts().items())
        end = "" if self.finished else " The check had not ended when this was written."
        lines = [TITLE, "", f"{counts}, in {time.time() - self.started:.0f} s.{end}", ""]
        lines += table("machine", "", self.machine)
        lines += table("option", "", self.options)
        for name, phase in self.phases.items():
            lines += [f"## {name}", "", f"{phase.about}", ""]
            if not phase.items:
                lines += [f"{SKIPPED}: {phase.message}.", ""]
                continue
            lines += ["| item | result | seconds | seen |", "| --- | --- | ---: | --- |"]
            for item in phase.items.values():
                seconds = "" if item.seconds is None else f"{item.seconds:.1f}"
                seen = "; ".join(filter(None, (item.message, shown(item.values))))
                lines.append(
                    f"| {in_cell(item.name)} | {item.status} | {seconds} | {in_cell(seen)} |"
                )
            lines.append("")
        return "\n".join(lines)


def table(left: str, right: str, rows: Mapping[str, Any]) -> list[str]:
    """A Markdown table of two columns and an empty line; no lines if there are no rows."""
    if not rows:
        return []
    head = [f"| {left} | {right} |", "| --- | --- |"]
    return [*head, *(f"| {key} | {in_cell(text(value))} |" for key, value in rows.items()), ""]


def shown(values: Mapping[str, Any]) -> str:
    """Values in one line."""
    return ", ".join(f"{name} {text(value)}" for name, value in values.items())


def text(value: Any) -> str:
    """A value as text; floats with three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def in_cell(words: str) -> str:
    """Text without line breaks and bars, for a cell of a table."""
    return " ".join(words.replace("|", "/").split())
