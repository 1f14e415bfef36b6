"""The lock of a job: one run at a time. The system lets go of it when a process dies."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import BinaryIO

from .errors import JobBusyError, JobFolderError
from .files import PLAIN, named_errors
from .names import LOCK

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

WAIT_SECONDS = 1.0
_RETRY_SECONDS = 0.02
# Windows keeps others from reading locked bytes: the lock lies behind the process id.
_LOCKED_BYTE = 1 << 20
_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}


class JobLock:
    """A held lock on a job folder; a context manager. ``release`` may be called again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @classmethod
    def acquire(cls, folder: Path, wait: float = WAIT_SECONDS, *, make: bool = True) -> JobLock:
        """Lock ``folder``, which is made (``make``) if it is not there.

        Raises JobBusyError if another run holds it for ``wait`` seconds, JobFolderError if the
        folder or the lock's file cannot be used.
        """
        path, deadline = folder / LOCK, time.monotonic() + wait
        while True:
            if make:
                with named_errors(folder, "making"):
                    folder.mkdir(exist_ok=True)
            file = _open(path)
            try:
                if file and _try(file, path) and _is_at(file, path):
                    _write_pid(file, path)
                    lock, file = cls(file), None
                    return lock
            finally:
                if file:
                    file.close()
            if time.monotonic() >= deadline:
                if not file:
                    raise JobFolderError(f"{folder} is gone.")
                raise JobBusyError(
                    f"Job {folder.name} is being worked on{_by(path)}. Wait until it is done, or "
                    "stop that run first."
                )
            time.sleep(_RETRY_SECONDS)

    @property
    def held(self) -> bool:
        """Whether it has not been released."""
        return not self._file.closed

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
    """Whether a run holds the lock of ``folder``; also if that cannot be found out."""
    path = folder / LOCK
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


def _write_pid(file: BinaryIO, path: Path) -> None:
    text = b"%d\n" % os.getpid()
    with named_errors(path, "writing", len(text)):
        file.truncate(0)
        file.seek(0)
        file.write(text)


def _by(path: Path) -> str:
    try:
        pid = path.read_text("ascii", "replace")[:20].strip()
    except OSError:
        return ""
    return f" by process {pid}" if pid.isdigit() else ""
