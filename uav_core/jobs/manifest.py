"""The manifest of a job: what is finished, as data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .identity import JobInputs, job_id
from .plan import JobPlan

MOST_STATES = 1000
MOST_FALLBACKS = 10_000
MOST_NAME = 255

UNFINISHED, FINISHED = "unfinished", "finished"


@dataclass(frozen=True)
class PartRecord:
    """A finished encoded part: frames ``start`` to ``stop`` (exclusive), size and checksum."""

    index: int
    start: int
    stop: int
    bytes: int
    blake2b: str


@dataclass(frozen=True)
class StateRecord:
    """A sampler state: of which scene, and up to which frame (exclusive, absolute) it is done."""

    file: str
    bytes: int
    blake2b: str
    scene: int
    frames_done: int


@dataclass(frozen=True)
class OutputRecord:
    """The finished video: its file name, size, checksum, and the folder it lies in.

    ``folder`` is inside the one that holds the folder of jobs, "" for that one itself; None, as
    older versions have it and where it lies elsewhere, for the one that the caller names.
    """

    name: str
    bytes: int
    blake2b: str
    folder: str | None = None


@dataclass(frozen=True)
class Fallback:
    """A setting changed in the run, as plain values, and the frame from which it holds."""

    frame: int
    setting: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """All that is known of a job. Times are seconds since 1970; parts are in order."""

    id: str
    inputs: JobInputs
    plan: JobPlan
    created: int
    updated: int
    parts: tuple[PartRecord, ...] = ()
    states: tuple[StateRecord, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    output: OutputRecord | None = None

    @property
    def status(self) -> str:
        """FINISHED once the output is there, else UNFINISHED."""
        return UNFINISHED if self.output is None else FINISHED

    @property
    def frames_done(self) -> int:
        """Frames in finished parts, or all of them once the output is there."""
        if self.output is not None:
            return self.plan.frames
        return sum(part.stop - part.start for part in self.parts)

    def changed(self, **fields: Any) -> Manifest:
        """A copy with other fields and the present time as ``updated``."""
        return replace(self, updated=now(), **fields)


def now() -> int:
    """The present time in whole seconds since 1970."""
    return max(0, int(time.time()))


def new_manifest(inputs: JobInputs, plan: JobPlan) -> Manifest:
    """The manifest of a job of which nothing is done. Raises InputError for unusable inputs."""
    printable = "".join(c if c.isprintable() else "?" for c in inputs.name)[:MOST_NAME]
    at = now()
    return Manifest(job_id(inputs), replace(inputs, name=printable), plan, at, at)
