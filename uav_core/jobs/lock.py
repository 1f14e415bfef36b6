"""Locked files of a job. The system lets go of them when a process dies, however it dies.

Not by the package filelock, whose releases before 4.0 empty a file when they look whether it is
locked: what a run says there that it works on would be lost.
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

# What a run works on instead of a scene.
JOINING, NOTHING = -1, -2

_MOST_BYTES = 64
_RETRY_SECONDS = 0.02
# Windows keeps others from reading locked bytes: the lock lies behind the content.
_LOCKED_BYTE = 1 << 20
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}


class JobBusyError(UpscaleAVideoError):
    """As many runs as there can be work on a job already."""


class LockedFile:
    """A file that is held locked; a context manager. ``release`` may be called again."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file

    @classmethod
    def take(cls, path: Path, flags: int = os.O_CREAT) -> Self | None:
        """Lock a file, made if it is not there; None if another holds it, or its folder is gone.

        Without ``flags`` it is not made. Raises FileError if the file cannot be used.
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
        """Whether it has not been released."""
        return not self._file.closed

    def release(self) -> None:
        """Let go of the lock; its file stays."""
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
    """The lock under which a job's manifest is read and written, as soon as it is free.

    ``make`` makes the folder. Raises FileError if it cannot be used, or is not there.
    """
    while True:
        if make:
            with named_errors(folder, "making"):
                folder.mkdir(exist_ok=True)
        elif not folder.is_dir():
            raise FileError(f"{folder} is gone.")
        lock = LockedFile.take(folder / LOCK)
        if lock is not None:
            return lock
        check_cancelled()
        time.sleep(_RETRY_SECONDS)


class Run(LockedFile):
    """One run's place in a job: a file it holds locked, which names its process and its scene.

    A run that dies lets go of its file, and so of its scene. All but ``release`` is called while
    the job's lock is held, so that nobody reads what is half written.
    """

    @classmethod
    def enter(cls, folder: Path) -> Self:
        """Take the first free place. Raises JobBusyError if all are taken, FileError."""
        for number in range(MOST_RUNS):
            run = cls.take(folder / RUN.format(number))
            if run is not None:
                return run
        raise JobBusyError(
            f"{MOST_RUNS} runs work on job {folder.name} already: expected fewer. Stop some."
        )

    def work_on(self, what: int) -> None:
        """Say that this run now works on a scene, JOINING or NOTHING."""
        data = f"process {os.getpid()}\nworks on {what}\n".encode("ascii")
        with named_errors(self.path, "writing", len(data)):
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(data)

    def others(self) -> tuple[int, ...]:
        """What every other live run works on."""
        folder = self.path.parent
        paths = [folder / name for name in sorted(os.listdir(folder)) if is_run(name)]
        return tuple(_works_on(path) for path in paths if path != self.path and is_held(path))


def _works_on(path: Path) -> int:
    found = re.search(rb"^works on (-?[0-9]{1,9})$", read_plain(path, _MOST_BYTES), re.MULTILINE)
    return int(found[1]) if found else NOTHING


def runs_in(folder: Path) -> bool:
    """Whether a run works in ``folder``, for a caller that holds the job's lock."""
    try:
        return any(is_held(folder / name) for name in os.listdir(folder) if is_run(name))
    except OSError:
        return True


def is_held(path: Path) -> bool:
    """Whether the file is locked; also if that cannot be found out."""
    try:
        lock = LockedFile.take(path, 0)
    except FileError:
        return True
    if lock is None:
        return os.path.lexists(path)
    lock.release()
    return False


def _open(path: Path, flags: int) -> BinaryIO | None:
    """The lock's file; None if it, or with O_CREAT its folder, is not there."""
    if os.path.islink(path):
        raise FileError(f"{path} is a link. Delete it.")
    with named_errors(path, "opening"):
        try:
            number = os.open(path, os.O_RDWR | PLAIN | flags, 0o666)
        except FileNotFoundError:
            return None
        file = os.fdopen(number, "r+b", buffering=0)
        found = os.fstat(number)
    # A second name would be another file that our process id is written into.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        file.close()
        raise FileError(f"{path} is no plain file of its own. Delete it.")
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether ``path`` is still this file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except OSError:
        return False


def _lock(file: BinaryIO, path: Path) -> bool:
    """Whether it was free, and is now locked."""
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
