"""Files of a job: read without following links, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..callbacks import ignore
from ..files import BINARY, PLAIN, arriving, sync_file, sync_folder
from .disk import free_bytes, human_bytes
from .errors import DiskFullError, JobError, JobFolderError
from .names import TMP
from .paths import output_name

DIGEST_BYTES = 32
_BLOCK = 1 << 20

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class FileDigest:
    """Size and BLAKE2b (hex) of a file's content."""

    bytes: int
    blake2b: str


class ByteCount:
    """Adds up counts of bytes for ``progress(done, total)``."""

    def __init__(self, progress: Callable[[int, int], None], total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def __call__(self, count: int) -> None:
        self._done = min(self._done + count, self._total)
        self._progress(self._done, self._total)


def name_error(error: OSError, path: Path, doing: str, need: int = 0) -> JobError:
    """The named error for what the system said while ``doing`` something with ``path``."""
    if error.errno in _FULL:
        free = "unknown"
        with suppress(JobFolderError):
            free = human_bytes(free_bytes(path.parent))
        return DiskFullError(
            f"The disk is full while {doing} {path}: needed {human_bytes(need)}, free {free}. "
            "Free some space and run the same job again: it continues where it was."
        )
    if error.errno in _REFUSED:
        return JobFolderError(
            f"The system refuses {doing} {path} ({error.strerror}). Choose a folder that you may "
            "write to, or change its permissions."
        )
    return JobFolderError(
        f"Failed {doing} {path}: {error.strerror or error}. Choose another folder."
    )


@contextmanager
def named_errors(path: Path, doing: str, need: int = 0) -> Iterator[None]:
    """Turns an OSError inside into a JobFolderError or DiskFullError."""
    try:
        yield
    except OSError as error:
        raise name_error(error, path, doing, need) from error


def is_plain(path: Path) -> bool:
    """Whether ``path`` is a regular file, not a link to one."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading; OSError where it is a link, a folder or a pipe."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "Not a plain file", str(path))
    return os.fdopen(os.open(path, os.O_RDONLY | PLAIN), "rb")


def read_plain(path: Path, most: int) -> bytes:
    """Content of a regular file of at most ``most`` bytes; JobFolderError otherwise."""
    with named_errors(path, "reading"), open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise JobFolderError(f"{path} has over {human_bytes(most)}: expected a smaller file.")
    return data


def hash_file(
    path: Path,
    *,
    advance: Callable[[int], None] = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> FileDigest:
    """Size and checksum of a regular file; JobFolderError if it cannot be read.

    ``advance(bytes)`` and ``check_cancelled()`` are called for every block of 1 MiB.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    size = feed(path, digest, advance=advance, check_cancelled=check_cancelled)
    return FileDigest(size, digest.hexdigest())


def feed(
    path: Path,
    digest: Any,
    *,
    advance: Callable[[int], None] = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> int:
    """Put a regular file through one of hashlib's digests, as ``hash_file`` does; its bytes."""
    size = 0
    # The callbacks stay outside: an OSError of theirs says nothing about this file.
    with named_errors(path, "reading"):
        file = open_plain(path)
    with file:
        while True:
            check_cancelled()
            with named_errors(path, "reading"):
                block = file.read(_BLOCK)
            if not block:
                return size
            digest.update(block)
            size += len(block)
            advance(len(block))


def settle(
    path: Path,
    *,
    progress: Callable[[int, int], None] = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> FileDigest:
    """Wait until a file and its name are on the disk, and take its checksum.

    ``progress(done, total)`` counts bytes. JobFolderError if it is not a regular file with content.
    """
    with named_errors(path, "reading"):
        found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
        raise JobFolderError(f"{path} is not a plain file with content. Write it first.")
    with named_errors(path, "writing"):
        sync_file(path)
        sync_folder(path.parent)
    count = ByteCount(progress, found.st_size)
    return hash_file(path, advance=count, check_cancelled=check_cancelled)


def check_target(folder: Path, name: str) -> None:
    """Make ``folder``, and see that a file ``name`` may be written into it.

    Raises UnsafePathError for a name that is none on some system, JobFolderError or DiskFullError.
    """
    output_name(name)
    with named_errors(folder, "making"):
        os.makedirs(folder, exist_ok=True)
    with named_errors(folder, "writing into"):
        handle, path = tempfile.mkstemp(suffix=TMP, dir=folder)
        os.close(handle)
        os.unlink(path)


def copy_whole(source: Path, target: Path, check_cancelled: Callable[[], None] = ignore) -> None:
    """Copy a file; ``target`` appears once it is complete.

    Raises DiskFullError or JobFolderError; nothing is left then.
    """
    tmp = target.with_name(target.name + TMP)
    with named_errors(source, "reading"):
        file, size = open_plain(source), os.lstat(source).st_size
    with (
        file,
        named_errors(target, "writing", size),
        arriving(target, tmp),
        open(tmp, "wb") as copy,
    ):
        while block := file.read(_BLOCK):
            check_cancelled()
            copy.write(block)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that after a crash at any point it has its old content or the new.

    Raises DiskFullError or JobFolderError; the old content is then still there.
    """
    tmp = path.with_name(path.name + TMP)
    with named_errors(path, "writing", len(data)):
        with suppress(FileNotFoundError):
            os.unlink(tmp)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY
        with arriving(path, tmp), os.fdopen(os.open(tmp, flags, 0o666), "wb") as file:
            file.write(data)
