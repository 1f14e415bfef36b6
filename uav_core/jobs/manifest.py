"""The manifest of a job records what is finished: as data, as text, and as a file with a backup.

The text is JSON with a checksum over all of it, so that any damage is found. It is read strictly:
names are plain, numbers are in range, and nothing in it is ever run.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import FileError, InputError
from ..files import read_plain, write_whole
from .names import BACKUP, MANIFEST
from .plain import (
    DIGEST_BYTES,
    MOST_NAME,
    Count,
    Digest,
    FileName,
    Folder,
    Plain,
    Shown,
    StateName,
    canonical,
    from_plain,
    to_plain,
)
from .plan import JobPlan

FORMAT_VERSION = 2
"""The version of the manifest's format and of all files in a job folder."""

MOST_STATES = 1000
MOST_FALLBACKS = 10_000
MOST_TEXT = 64 << 20
"""Bytes of a manifest's text."""

_ID_BYTES = 16

UNFINISHED, FINISHED = "unfinished", "finished"

log = logging.getLogger(__name__)


class DamagedManifestError(FileError, ValueError):
    """A manifest is not whole, not ours, or has impossible values."""


# --- as data --------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobInputs:
    """Everything that decides a job's result, as plain values.

    ``fingerprint`` is the input file's; ``settings`` are the run's; ``weights``: name -> hash in
    hex. ``name`` of the input is shown in lists and not part of the id: a renamed file is the same
    job.
    """

    fingerprint: Plain
    settings: Plain
    weights: Plain
    name: Shown = ""


@dataclass(frozen=True)
class PartRecord:
    """A finished encoded part: frames ``start`` to ``stop`` (exclusive), size and checksum."""

    index: Count
    start: Count
    stop: Count
    bytes: Count
    blake2b: Digest


@dataclass(frozen=True)
class StateRecord:
    """A sampler state: its scene, and the absolute frame (exclusive) up to which that is done."""

    file: StateName
    bytes: Count
    blake2b: Digest
    scene: Count
    frames_done: Count


@dataclass(frozen=True)
class OutputRecord:
    """The finished video: its file name, size, checksum, and its folder.

    ``folder`` is relative to the parent of the folder of jobs, and "" for that parent itself. None
    means the folder that the caller names: for videos elsewhere, and in records of older versions.
    """

    name: FileName
    bytes: Count
    blake2b: Digest
    folder: Folder | None = None


@dataclass(frozen=True)
class Fallback:
    """A setting that changed during a run, as plain values, and the frame from which it holds."""

    frame: Count
    setting: Plain


@dataclass(frozen=True)
class Manifest:
    """Everything that is known of a job. Times are seconds since 1970; parts are in order."""

    inputs: JobInputs
    plan: JobPlan
    created: Count
    updated: Count
    parts: tuple[PartRecord, ...]
    states: tuple[StateRecord, ...]
    fallbacks: tuple[Fallback, ...]
    output: OutputRecord | None

    @cached_property
    def id(self) -> str:
        """The job's id, and the name of its folder."""
        return job_id(self.inputs)

    @cached_property
    def text(self) -> bytes:
        """The content of its file; InputError if its values are not plain, or over 64 MiB."""
        head = {"version": FORMAT_VERSION, "id": self.id, "status": self.status}
        body = canonical({**head, **to_plain(self)}, "manifest")
        if len(body) > MOST_TEXT - 200:
            raise InputError(
                f"The manifest would have {len(body)} bytes, expected at most {MOST_TEXT}. Store "
                "less in the settings and the fingerprint."
            )
        return b'{"checksum":"%s","job":%s}\n' % (_checksum(body).encode(), body)

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


def job_id(inputs: JobInputs) -> str:
    """The job's id, 32 hex digits: equal for equal inputs, different after any change.

    Raises InputError, naming the place, for values that are not plain.
    """
    for name, value in inputs.weights.items():
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{16,128}", value):
            raise InputError(
                f"The hash of weights {name!r:.80} is {value!r:.80}: expected hexadecimal digits."
            )
    body = {
        "fingerprint": inputs.fingerprint,
        "settings": inputs.settings,
        "weights": inputs.weights,
        "version": FORMAT_VERSION,
    }
    return hashlib.blake2b(canonical(body, "inputs"), digest_size=_ID_BYTES).hexdigest()


def is_job_id(name: str) -> bool:
    """Whether ``name`` has the form of a job's id, and so of its folder's name."""
    return re.fullmatch(f"[0-9a-f]{{{2 * _ID_BYTES}}}", name) is not None


def now() -> int:
    """The present time in whole seconds since 1970."""
    return max(0, int(time.time()))


def new_manifest(inputs: JobInputs, plan: JobPlan) -> Manifest:
    """The manifest of a job that was not begun. Raises InputError for unusable inputs."""
    printable = "".join(c if c.isprintable() else "?" for c in inputs.name)[:MOST_NAME]
    at = now()
    return Manifest(replace(inputs, name=printable), plan, at, at, (), (), (), None)


# --- as text --------------------------------------------------------------------------------


def parse_manifest(data: bytes, source: str) -> Manifest:
    """The manifest whose ``text`` is ``data``. ``source`` names it in errors.

    Raises DamagedManifestError for anything that is not exactly such a text.
    """
    try:
        whole = json.loads(data.decode("ascii"), object_pairs_hook=_no_repeats)
        whole = from_plain(_Whole, whole, "the file")
        job = dict(whole.job)
        version, *head = (job.pop(name, None) for name in ("version", "id", "status"))
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(
                f"it has format {version!r:.60} and this version reads {FORMAT_VERSION}: continue "
                "the job with the version that started it"
            )
        if _checksum(canonical(whole.job)) != whole.checksum:
            raise ValueError("its checksum does not match its content")
        manifest = from_plain(Manifest, job, "job")
        if head != [manifest.id, manifest.status]:
            raise ValueError(
                f"its id and status are {head!r:.80}, expected {manifest.id}, {manifest.status}"
            )
        _check(manifest)
        return manifest
    except (ValueError, RecursionError) as error:
        raise DamagedManifestError(
            f"{source} cannot be used: {str(error).rstrip('.') or 'not a manifest'}. Delete its "
            "folder to start the job from the beginning."
        ) from error


@dataclass(frozen=True)
class _Whole:
    checksum: Digest
    job: Plain


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _checksum(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES).hexdigest()


def _check(manifest: Manifest) -> None:
    """Raise ValueError for records that do not fit the job's plan or each other."""
    plan, last = manifest.plan, -1
    for part in manifest.parts:
        if not last < part.index or range(part.start, part.stop) != plan.part(part.index):
            raise ValueError(f"{part} comes after part {last}, or does not match the plan")
        last = part.index
    for state in manifest.states:
        plan.check_state(state.scene, state.frames_done)
    if len({state.file for state in manifest.states}) != len(manifest.states):
        raise ValueError("two states share one file")
    if any(fallback.frame > plan.frames for fallback in manifest.fallbacks):
        raise ValueError(f"a fallback is at a frame after {plan.frames}")
    states, fallbacks = len(manifest.states), len(manifest.fallbacks)
    if states > MOST_STATES or fallbacks > MOST_FALLBACKS:
        raise ValueError(f"{states} states and {fallbacks} fallbacks are more than allowed")


# --- as a file ------------------------------------------------------------------------------


def read_manifest(folder: Path) -> tuple[Manifest, bool] | None:
    """The manifest of a job folder and whether it is the newest; None if there is none.

    The backup is used, with a warning, if the newest is missing or cannot be used. Raises
    DamagedManifestError if neither can be used; one that belongs to another folder cannot.
    """
    problems: list[FileError] = []
    for name in (MANIFEST, BACKUP):
        path = folder / name
        try:
            manifest = parse_manifest(read_plain(path, MOST_TEXT), str(path))
            if manifest.id != folder.name:
                raise DamagedManifestError(
                    f"{path} belongs to job {manifest.id}. Move it back to the folder with that "
                    "name, or delete the folder that it is in."
                )
        except FileError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                problems.append(error)
            continue
        if name == BACKUP:
            why = problems[0] if problems else f"{MANIFEST} is missing"
            log.warning("Job %s continues from the backup of its manifest: %s", folder.name, why)
        return manifest, name == MANIFEST
    if problems:
        raise DamagedManifestError(str(problems[0])) from problems[0]
    return None


def write_manifest(folder: Path, manifest: Manifest, previous: Manifest | None) -> None:
    """Write the manifest and keep ``previous``, the last good one, as the backup.

    Raises DiskFullError or FileError; the folder then still has a good manifest.
    """
    if previous is not None:
        write_whole(folder / BACKUP, previous.text)
    write_whole(folder / MANIFEST, manifest.text)


def manifest_stamp(folder: Path) -> tuple[int, ...]:
    """A value that changes whenever another manifest is written."""
    try:
        found = os.lstat(folder / MANIFEST)
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
