"""Lists the jobs in a folder of jobs, and removes those no longer needed."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import FileError, InputError
from ..files import is_plain, name_error, named_errors
from .lock import LockedFile, runs_in
from .manifest import (
    FINISHED,
    DamagedManifestError,
    JobInputs,
    is_job_id,
    job_id,
    now,
    read_manifest,
)
from .names import BACKUP, LOCK, MANIFEST, is_half_written, is_lock, is_ours

DAMAGED, EMPTY = "damaged", "empty"
_DAY = 24 * 3600

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobSummary:
    """One job folder. ``bytes`` are on the disk, ``age`` is in seconds since the last change.

    ``status`` is "unfinished", "finished", "damaged" or "empty" (a run stopped before it began);
    it is that of the manifest, parts are not read. ``busy``: a run works on it.
    """

    folder: Path
    status: str
    busy: bool
    age: int = 0
    bytes: int = 0
    name: str = ""
    frames_done: int = 0
    frames: int = 0
    output: str | None = None
    inputs: JobInputs | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self.folder.name


def list_jobs(*roots: str | os.PathLike[str]) -> tuple[JobSummary, ...]:
    """The jobs in some folders of jobs, the longest untouched first.

    Folders without a job's name, and links, are skipped, and so are ``roots`` that do not exist.
    FileError if one of ``roots`` cannot be read.
    """
    jobs: list[JobSummary] = []
    for root in (Path(os.path.realpath(root)) for root in roots):
        with named_errors(root, "listing"):
            names = os.listdir(root) if root.exists() else []
        jobs += filter(None, (_summary(root / name) for name in names if is_job_id(name)))
    return tuple(sorted(jobs, key=lambda job: (-job.age, job.id)))


def with_other_weights(
    root: str | os.PathLike[str], inputs: JobInputs, files: Collection[str]
) -> Iterator[tuple[JobSummary, tuple[str, ...]]]:
    """Jobs in ``root`` that differ from ``inputs`` only in weights, with the names that differ.

    All of these names must be in ``files``; a job that differs in others is meant as another job,
    and is skipped. Raises as ``list_jobs``.
    """
    for job in list_jobs(root):
        if job.inputs is None or job.id != job_id(replace(inputs, weights=job.inputs.weights)):
            continue
        old, new = job.inputs.weights, inputs.weights
        changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
        if changed and changed <= {*files}:
            yield job, tuple(sorted(changed))


def clean(
    *roots: str | os.PathLike[str],
    keep_days: float | None = None,
    max_bytes: int | None = None,
    finished_only: bool = False,
    dry_run: bool = False,
) -> tuple[JobSummary, ...]:
    """Remove jobs in some folders of jobs and return them; ``dry_run`` only lists them.

    First removes jobs untouched for ``keep_days`` days; then, while all jobs together have more
    than ``max_bytes``, the oldest finished ones, and after them the oldest others. A limit of None
    removes nothing. ``finished_only`` keeps all but finished jobs. A finished video is removed with
    its job only if it is in the job's folder.

    Never removed: a job that a run works on, and a folder without our manifest or with other files
    than ours. Links are not followed. Jobs that cannot be removed are logged.
    """
    if not (keep_days or 0) >= 0 or (max_bytes or 0) < 0:
        raise InputError(
            f"keep_days is {keep_days} and max_bytes is {max_bytes}: expected no negative numbers."
        )
    jobs = list_jobs(*roots)
    free = [job for job in jobs if not job.busy and (job.status == FINISHED or not finished_only)]
    old = {job.folder for job in free if keep_days is not None and job.age >= keep_days * _DAY}
    free.sort(key=lambda job: (job.folder not in old, job.status != FINISHED))
    total, removed = sum(job.bytes for job in jobs), list[JobSummary]()
    for job in free:
        unwanted = job.folder in old or (max_bytes is not None and total > max_bytes)
        if unwanted and remove_job(job, dry_run=dry_run):
            removed.append(job)
            total -= job.bytes
    return tuple(removed)


def _summary(folder: Path) -> JobSummary | None:
    """The summary of a job folder; None if it is not a folder, or is gone meanwhile."""
    try:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode):
            return None
        # Lock files are left out: they are tiny, and come and go.
        entries = [entry for entry in os.scandir(folder) if not is_lock(entry.name)]
        size = sum(_size(entry) for entry in entries)
        busy = _is_busy(folder)
    except FileNotFoundError:
        return None
    except OSError:
        return JobSummary(folder, DAMAGED, True)
    job = JobSummary(folder, DAMAGED, busy, max(0, now() - int(found.st_mtime)), size)
    try:
        read = read_manifest(folder)
    except DamagedManifestError:
        return job
    if read is None:
        begun = any(not is_half_written(entry.name) for entry in entries)
        return job if begun else replace(job, status=EMPTY)
    manifest = read[0]
    return replace(
        job,
        status=manifest.status,
        age=max(0, now() - manifest.updated),
        name=manifest.inputs.name,
        frames_done=manifest.frames_done,
        frames=manifest.plan.frames,
        output=manifest.output and manifest.output.name,
        inputs=manifest.inputs,
    )


def _is_busy(folder: Path) -> bool:
    """Whether a run works on a job; True also if that cannot be found out."""
    # Under the job's lock: a run that begins must not take this look at a file for another run.
    try:
        lock = LockedFile.take(folder / LOCK, 0)
    except FileError:
        return True
    if lock is None:
        return os.path.lexists(folder / LOCK)
    with lock:
        return bool(runs_in(folder))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0


def remove_job(job: JobSummary, *, dry_run: bool = False) -> bool:
    """Remove one listed job; returns whether it is gone, or with ``dry_run`` could be removed.

    Jobs that ``clean`` never removes stay, and so does a job that changed since it was listed.
    """
    try:
        lock = LockedFile.take(job.folder / LOCK)
        if lock is None:
            return False
        # The job may have changed since it was listed, so it is read again under the lock.
        with lock:
            again = None if runs_in(job.folder) else _summary(job.folder)
            if again is None or replace(again, busy=False, age=job.age) != job:
                return False
            names = _removable(job)
            if dry_run or names is None:
                return names is not None
            for name in names:
                os.unlink(job.folder / name)
            # Windows cannot remove an open file; elsewhere a run waiting for the lock sees it gone.
            if os.name == "nt":
                lock.release()
            os.unlink(job.folder / LOCK)
        os.rmdir(job.folder)
    except (FileError, OSError) as error:
        if isinstance(error, OSError):
            error = name_error(error, job.folder, "removing")
        log.warning("Job %s was not removed: %s", job.id, error)
        return False
    log.info("Removed job %s (%s)", job.id, job.status)
    return True


def _removable(job: JobSummary) -> list[str] | None:
    """The files to remove, without the lock and with the manifests last.

    None if the folder has other files than ours, or no manifest.
    """
    names = sorted(os.listdir(job.folder))
    for name in names:
        if not (is_ours(name) or name == job.output) or not is_plain(job.folder / name):
            log.warning("Job %s was not removed: %r is not a file of a job", job.id, name)
            return None
    manifests = [name for name in (BACKUP, MANIFEST) if name in names]
    if not manifests and job.status != EMPTY:
        log.warning("Job %s was not removed: it has no manifest", job.id)
        return None
    return [name for name in names if name not in (*manifests, LOCK)] + manifests
