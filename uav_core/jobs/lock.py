"""Locked files of a job. The system lets go of them when a process dies."""

from __future__ import annotations

import errno
import math
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ..callbacks import ignore
from .errors import JobBusyError, JobFolderError
from .files import PLAIN, named_errors
from .names import LOCK, is_run

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_RETRY_SECONDS = 0.02
# Windows keeps others from reading locked bytes: the lock lies behind the content.
_LOCKED_BYTE = 1 << 20
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}


class JobLock:
    """A locked file in a job folder; a context manager. ``release`` may be called again."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self.path = file, path

    @classmethod
    def acquire(
        cls,
        folder: Path,
        wait: float = math.inf,
        *,
        name: str = LOCK,
        make: bool = True,
        check_cancelled: Callable[[], None] = ignore,
    ) -> JobLock:
        """Lock the file ``name`` of ``folder``, which is made (``make``) if it is not there.

        Raises JobBusyError if another run holds it for ``wait`` seconds, JobFolderError if the
        folder or the lock's file cannot be used. ``check_cancelled`` is called while it waits.
        """
        path, deadline = folder / name, time.monotonic() + wait
        while True:
            if make:
                with named_errors(folder, "making"):
                    folder.mkdir(exist_ok=True)
            file = _open(path)
            try:
                if file and _try(file, path) and _is_at(file, path):
                    lock, file = cls(file, path), None
                    return lock
            finally:
                if file:
                    file.close()
            if not file and not make:
                raise JobFolderError(f"{folder} is gone.")
            if time.monotonic() >= deadline:
                raise JobBusyError(
                    f"Job {folder.name} is being worked on. Wait until it is done, or stop that "
                    "run first."
                )
            check_cancelled()
            time.sleep(_RETRY_SECONDS)

    @property
    def held(self) -> bool:
        """Whether it has not been released."""
        return not self._file.closed

    def write(self, text: str) -> None:
        """Replace the file's content; not waited for until it is on the disk."""
        data = text.encode("ascii")
        with named_errors(self.path, "writing", len(data)):
            self._file.truncate(0)
            self._file.seek(0)
            self._file.write(data)

    def release(self) -> None:
        """Let go of the lock; its file stays."""
        if not self._file.closed:
            _unlock(self._file)
            self._file.close()

    def __enter__(self) -> JobLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_locked(folder: Path) -> bool:
    """Whether a run works in ``folder``; also if that cannot be found out."""
    return is_held(folder / LOCK) or runs_in(folder)


def runs_in(folder: Path) -> bool:
    """The same, if the caller holds the job's lock."""
    try:
        return any(is_held(folder / name) for name in os.listdir(folder) if is_run(name))
    except OSError:
        return True


def is_held(path: Path) -> bool:
    """Whether the file is locked; also if that cannot be found out."""
    try:
        file = _open(path, create=False)
        if not file:
            return False
        with file:
            if not _try(file, path):
                return True
            _unlock(file)
            return False
    except JobFolderError:
        return True


def _open(path: Path, create: bool = True) -> BinaryIO | None:
    """The lock's file, or None if it (or with ``create`` its folder) is not there."""
    flags = os.O_RDWR | PLAIN | (os.O_CREAT if create else 0)
    if os.path.islink(path):
        raise JobFolderError(f"{path} is a link. Delete it.")
    with named_errors(path, "opening"):
        try:
            file = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        except FileNotFoundError:
            return None
        found = os.fstat(file.fileno())
    # A second name would be another file that our process id is written into.
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        file.close()
        raise JobFolderError(f"{path} is no plain file of its own. Delete it.")
    return file


def _try(file: BinaryIO, path: Path) -> bool:
    try:
        if sys.platform == "win32":
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise JobFolderError(
            f"{path} cannot be locked ({error.strerror}). Choose a folder on a local disk."
        ) from error
    return True


def _unlock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether ``path`` is still this file: cleaning may have removed it before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except OSError:
        return False
