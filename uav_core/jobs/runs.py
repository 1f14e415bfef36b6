"""The runs that work on one job at the same time, and what each has taken on."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import JobBusyError
from .files import read_plain
from .lock import JobLock, is_held
from .names import MOST_RUNS, is_run, run_name

JOINING = -1
"""Taken on instead of a scene: joining the parts."""
NOTHING = -2

_MOST_BYTES = 64


class Run:
    """One run's place: a file it holds locked, which names its process and its scene.

    A run that dies lets go of its file, and so of its scene. All but ``leave`` is called while the
    job's lock is held, so that nobody reads what is half written.
    """

    def __init__(self, lock: JobLock) -> None:
        self._lock = lock

    @classmethod
    def enter(cls, folder: Path) -> Run:
        """Take the first free place. Raises JobBusyError if all are taken, JobFolderError."""
        for number in range(MOST_RUNS):
            try:
                run = cls(JobLock.acquire(folder, 0, name=run_name(number), make=False))
            except JobBusyError:
                continue
            try:
                run.take(NOTHING)
            except BaseException:
                run.leave()
                raise
            return run
        raise JobBusyError(
            f"{MOST_RUNS} runs work on job {folder.name} already: expected fewer. Stop some."
        )

    @property
    def held(self) -> bool:
        """Whether it was not left."""
        return self._lock.held

    def take(self, what: int) -> None:
        """Say that this run now works on a scene, JOINING or NOTHING."""
        self._lock.write(f"process {os.getpid()}\nworks on {what}\n")

    def others(self) -> tuple[int, ...]:
        """What every other live run works on."""
        own, folder = self._lock.path, self._lock.path.parent
        paths = sorted(folder / name for name in os.listdir(folder) if is_run(name))
        return tuple(_taken(path) for path in paths if path != own and is_held(path))

    def leave(self) -> None:
        """Give the place free."""
        self._lock.release()


def _taken(path: Path) -> int:
    found = re.search(rb"^works on (-?[0-9]{1,9})$", read_plain(path, _MOST_BYTES), re.MULTILINE)
    return int(found[1]) if found else NOTHING
