"""Locked files of a job. The system releases them when a process dies, however it dies.

The package filelock is not used: its releases before 4.0 empty a file when they test whether it is
locked, which would erase what a run has written there.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..callbacks import ignore
from ..errors import FileError, UpscaleAVideoError
from ..files import PLAIN, named_errors, read_plain
from .names import LOCK, RUN, is_run

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from typing_extensions import Self

MOST_RUNS = 256
"""The most runs that may work on one job at the same time."""

# Values in place of the number of a scene: a run joins the parts, or works on nothing.
JOINING, NOTHING = -1, -2

_MOST_BYTES = 64
_RETRY_SECONDS = 0.02
# Windows keeps others from reading locked bytes, so the locked byte is behind the content.
_LOCKED_BYTE = 1 << 20
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}


class JobBusyError(UpscaleAVideoError):
    """The most runs that are possible already work on a job."""


class LockedFile:
    """A file that is kept locked; a context manager. ``release`` may be called twice."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file

    @classmethod
    def take(cls, path: Path, flags: int = os.O_CREAT) -> Self | None:
        """Lock a file; None if another has locked it, or if it or its folder does not exist.

        A missing file is made unless ``flags`` is 0. Raises FileError if the file cannot be used.
        """
        file = _open(path, flags)
        if file is None:
            return None
        try:
            # Cleaning may have removed it before it was locked.
            if _lock(file, path) and _is_at(file, path):
                return cls(path, file)
        except BaseException:
            file.close()
            raise
        file.close()
        return None

    @property
    def held(self) -> bool:
        """Whether the lock was not released yet."""
        return not self._file.closed

    def release(self) -> None:
        """Release the lock; its file stays."""
        if self.held:
            _unlock(self._file)
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_job(
    folder: Path, check_cancelled: Callable[[], None] = ignore, *, make: bool = False
) -> LockedFile:
    """Wait for the lock under which a job's manifest is read and written, and return it.

    ``make`` makes the folder. Raises FileError if the folder cannot be used or does not exist.
    """
    while True:
        if make:
            with named_errors(folder, "creating"):
                folder.mkdir(exist_ok=True)
        elif not folder.is_dir():
            raise FileError(f"The job folder {folder} no longer exists. Start the job again.")
        lock = LockedFile.take(folder / LOCK)
        if lock is not None:
            return lock
        check_cancelled()
        time.sleep(_RETRY_SECONDS)


class Run(LockedFile):
    """One run's place in a job: a file that it keeps locked, with its process and its scene.

    When a run dies, its file is unlocked and its scene is free. Call all methods but ``release``
    while holding the job's lock, so that nobody reads a half-written file.
    """

    @classmethod
    def enter(cls, folder: Path) -> Self:
        """Take the first free place. Raises FileError, and JobBusyError if all are taken."""
        for number in range(MOST_RUNS):
            run = cls.take(folder / RUN.format(number))
            if run is not None:
                return run
        raise JobBusyError(
            f"{MOST_RUNS} runs already work on job {folder.name}, which is the maximum. Stop some "
            "of them."
        )

    def work_on(self, what: int) -> None:
        """Write that this run now works on ``what``: a scene, JOINING or NOTHING."""
        data = f"process {os.getpid()}\nworks on {what}\n".encode("ascii")
        with named_errors(self.path, "writing", len(data)):
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(data)

    def others(self) -> tuple[int, ...]:
        """The scenes (or JOINING, NOTHING) that all other live runs work on."""
        return tuple(_works_on(path) for path in runs_in(self.path.parent) if path != self.path)


def _works_on(path: Path) -> int:
    found = re.search(rb"^works on (-?[0-9]{1,9})$", read_plain(path, _MOST_BYTES), re.MULTILINE)
    return int(found[1]) if found else NOTHING


def runs_in(folder: Path) -> list[Path]:
    """The files of the runs that work in ``folder``; the caller must hold the job's lock."""
    paths = [folder / name for name in sorted(os.listdir(folder)) if is_run(name)]
    return [path for path in paths if is_held(path)]


def is_held(path: Path) -> bool:
    """Whether the file is locked; True also if that cannot be found out."""
    try:
        lock = LockedFile.take(path, 0)
    except FileError:
        return True
    if lock is None:
        return os.path.lexists(path)
    lock.release()
    return False


def _open(path: Path, flags: int) -> BinaryIO | None:
    """The lock's file; None if it (with O_CREAT: its folder) does not exist."""
    if os.path.islink(path):
        raise FileError(f"{path} is a link: expected a regular file. Delete the link.")
    with named_errors(path, "opening"):
        try:
            number = os.open(path, os.O_RDWR | PLAIN | flags, 0o666)
        except FileNotFoundError:
            return None
        file = os.fdopen(number, "r+b", buffering=0)
        found = os.fstat(number)
    # With a second hard link, our process id would be written into another file too.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        file.close()
        raise FileError(f"{path} is not a regular file, or has a second hard link. Delete it.")
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether ``path`` still names this file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except OSError:
        return False


def _lock(file: BinaryIO, path: Path) -> bool:
    """Try to lock the file; whether it was free."""
    try:
        if sys.platform == "win32":
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise FileError(
            f"{path} cannot be locked ({error.strerror}). Choose a folder on a local disk."
        ) from error
    return True


def _unlock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
