"""What jobs there are under a root, and removing those no longer needed."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError
from .errors import DamagedManifestError, JobBusyError, JobError
from .files import is_plain, name_error
from .identity import JobInputs, is_job_id
from .lock import JobLock, is_locked, runs_in
from .manifest import FINISHED, now
from .manifest_file import read_manifest
from .names import BACKUP, LOCK, MANIFEST, TMP, is_lock, is_ours

DAMAGED, EMPTY = "damaged", "empty"
_DAY = 24 * 3600

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobSummary:
    """One job folder. ``bytes`` are on the disk, ``age`` is in seconds since the last change.

    ``status`` is "unfinished", "finished", "damaged" (``problem`` says how) or "empty" (of a run
    that stopped before it began); it is as recorded, files are not read. ``busy``: a run holds it.
    """

    id: str
    folder: Path
    name: str
    frames_done: int
    frames: int
    bytes: int
    age: int
    status: str
    busy: bool
    problem: str = ""
    output: str | None = None
    inputs: JobInputs | None = None


def list_jobs(*roots: str | os.PathLike[str]) -> tuple[JobSummary, ...]:
    """The jobs under some folders, the longest untouched first; none under one not there.

    Folders that do not have a job's name, and links, are passed over. JobFolderError if one of
    ``roots`` cannot be read.
    """
    jobs = [job for root in roots for job in _jobs_in(Path(os.path.realpath(root)))]
    return tuple(sorted(jobs, key=lambda job: (-job.age, job.id)))


def _jobs_in(root: Path) -> Iterator[JobSummary]:
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return
    except OSError as error:
        raise name_error(error, root, "listing") from error
    for name in sorted(names):
        job = _summary(root / name) if is_job_id(name) else None
        if job is not None:
            yield job


def with_other_weights(
    root: str | os.PathLike[str], inputs: JobInputs, files: Collection[str]
) -> Iterator[tuple[JobSummary, tuple[str, ...]]]:
    """Jobs under ``root`` that differ from ``inputs`` only in weights, and in which of ``files``.

    ``files`` are the names of weights that count; a job that differs in others is another job by
    choice, and passed over. Raises as ``list_jobs``.
    """
    for job in list_jobs(root):
        known = job.inputs
        if known is None or (known.fingerprint, known.settings) != (
            inputs.fingerprint,
            inputs.settings,
        ):
            continue
        both = {*known.weights, *inputs.weights}
        changed = {name for name in both if known.weights.get(name) != inputs.weights.get(name)}
        if changed and changed <= {*files}:
            yield job, tuple(sorted(changed))


def clean(
    *roots: str | os.PathLike[str],
    keep_days: float | None = None,
    max_bytes: int | None = None,
    finished_only: bool = False,
    dry_run: bool = False,
) -> tuple[JobSummary, ...]:
    """Remove jobs under some folders and return them, or those it would remove (``dry_run``).

    Removed are jobs untouched for ``keep_days`` days; then, while all jobs together have
    more than ``max_bytes``, the oldest finished and after them the oldest of the others. A bound
    left out removes nothing. ``finished_only`` spares all but finished jobs. A finished video goes
    with its job only if it lies in the job's folder.

    Never removed: a job that a run holds, and a folder that has no manifest of ours or holds
    anything but our files. Links are not followed. What cannot be removed is logged.
    """
    if not (keep_days or 0) >= 0 or (max_bytes or 0) < 0:
        raise InputError(f"Keep {keep_days} days and {max_bytes} bytes: expected none below 0.")
    jobs = list_jobs(*roots)
    free = [job for job in jobs if not job.busy and (job.status == FINISHED or not finished_only)]
    total = sum(job.bytes for job in jobs)
    removed: list[JobSummary] = []
    for job in sorted(free, key=lambda job: job.status != FINISHED):
        too_old = keep_days is not None and job.age >= keep_days * _DAY
        if too_old and remove_job(job, dry_run=dry_run):
            removed.append(job)
            total -= job.bytes
    if max_bytes is not None:
        for job in sorted(free, key=lambda job: job.status != FINISHED):
            if total > max_bytes and job not in removed and remove_job(job, dry_run=dry_run):
                removed.append(job)
                total -= job.bytes
    return tuple(removed)


def _summary(folder: Path) -> JobSummary | None:
    """None for what is no folder, or is gone meanwhile."""
    try:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode):
            return None
        # What runs hold is left out: it is a line each, and comes and goes.
        there = [entry for entry in os.scandir(folder) if not is_lock(entry.name)]
        sizes = {entry.name: _size(entry) for entry in there}
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = str(name_error(error, folder, "listing"))
        return JobSummary(folder.name, folder, "", 0, 0, 0, 0, DAMAGED, True, problem)
    age = max(0, now() - int(found.st_mtime))
    job = JobSummary(
        folder.name, folder, "", 0, 0, sum(sizes.values()), age, EMPTY, is_locked(folder)
    )
    try:
        read = read_manifest(folder)
    except DamagedManifestError as error:
        return replace(job, status=DAMAGED, problem=str(error))
    if read is None:
        if all(name.endswith(TMP) for name in sizes):
            return job
        return replace(job, status=DAMAGED, problem=f"{folder} has no {MANIFEST}.")
    manifest = read[0]
    return replace(
        job,
        name=manifest.inputs.name,
        frames_done=manifest.frames_done,
        frames=manifest.plan.frames,
        age=max(0, now() - manifest.updated),
        status=manifest.status,
        output=manifest.output and manifest.output.name,
        inputs=manifest.inputs,
    )


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def remove_job(job: JobSummary, *, dry_run: bool = False) -> bool:
    """Remove one listed job; whether it is gone, or could be (``dry_run``).

    What ``clean`` never removes stays, and so does a job that went on since it was listed.
    """
    try:
        # What a listing saw may have changed: all is looked at again under the lock.
        with JobLock.acquire(job.folder, wait=0, make=False):
            if runs_in(job.folder) or _changed(job):
                return False
            names = _removable(job)
            if dry_run or names is None:
                return names is not None
            for name in names:
                os.unlink(job.folder / name)
            # Windows removes no open file; elsewhere a run that waits for the lock sees it gone.
            if os.name != "nt":
                os.unlink(job.folder / LOCK)
        if os.name == "nt":
            os.unlink(job.folder / LOCK)
        os.rmdir(job.folder)
    except JobBusyError:
        return False
    except JobError as error:
        log.warning("Job %s is not removed: %s", job.id, error)
        return False
    except OSError as error:
        log.warning("Job %s: %s", job.id, name_error(error, job.folder, "removing"))
        return False
    log.info("Removed job %s (%s)", job.id, job.status)
    return True


def _changed(job: JobSummary) -> bool:
    """Whether a run has worked on it since it was listed."""
    again = _summary(job.folder)
    return again is None or replace(again, busy=False, age=job.age) != job


def _removable(job: JobSummary) -> list[str] | None:
    """The files to remove but the lock, the manifests last; None if it is not ours alone."""
    names = sorted(os.listdir(job.folder))
    strange = [
        name
        for name in names
        if not (is_ours(name) or name == job.output) or not is_plain(job.folder / name)
    ]
    if strange:
        log.warning("Job %s is not removed: %r is no file of a job", job.id, strange[0])
        return None
    manifests = [name for name in (BACKUP, MANIFEST) if name in names]
    if not manifests and job.status != EMPTY:
        log.warning("Job %s is not removed: it has no manifest", job.id)
        return None
    return [name for name in names if name not in (*manifests, LOCK)] + manifests
