"""Files of a job: read without following links, written whole or not at all, with room on disk."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..callbacks import ignore
from ..errors import InputError
from ..files import BINARY, PLAIN, arriving, sync_file, sync_folder
from .errors import DiskFullError, JobError, JobFolderError
from .names import TMP, output_name
from .plain import DIGEST_BYTES
from .plan import JobPlan

_BLOCK = 1 << 20

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}

# A part's record in the manifest, which is there twice and a third time while it is written.
_BYTES_PER_PART = 3 * 256
# Two states are kept while the next is written.
_STATES = 3


# --- named errors ---------------------------------------------------------------------------


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


# --- reading --------------------------------------------------------------------------------


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


def blocks(path: Path) -> Iterator[bytes]:
    """The content of a regular file in pieces of 1 MiB; JobFolderError if it cannot be read."""
    with named_errors(path, "reading"), open_plain(path) as file:
        while block := file.read(_BLOCK):
            yield block


@dataclass(frozen=True)
class FileDigest:
    """Size and BLAKE2b (hex) of a file's content."""

    bytes: int
    blake2b: str


def hash_file(path: Path, check_cancelled: Callable[[], None] = ignore) -> FileDigest:
    """Size and checksum of a regular file; JobFolderError if it cannot be read."""
    digest, size = hashlib.blake2b(digest_size=DIGEST_BYTES), 0
    for block in blocks(path):
        check_cancelled()
        digest.update(block)
        size += len(block)
    return FileDigest(size, digest.hexdigest())


# --- writing --------------------------------------------------------------------------------


def settle(path: Path, check_cancelled: Callable[[], None] = ignore) -> FileDigest:
    """Wait until a file and its name are on the disk, and take its checksum.

    JobFolderError if it is not a regular file with content.
    """
    with named_errors(path, "reading"):
        found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
        raise JobFolderError(f"{path} is not a plain file with content. Write it first.")
    with named_errors(path, "writing"):
        sync_file(path)
        sync_folder(path.parent)
    return hash_file(path, check_cancelled)


def copy_whole(source: Path, target: Path, check_cancelled: Callable[[], None] = ignore) -> None:
    """Copy a file; ``target`` appears once it is complete.

    Raises DiskFullError or JobFolderError; nothing is left then.
    """
    with named_errors(source, "reading"):
        size = os.lstat(source).st_size
    tmp = target.with_name(target.name + TMP)
    with named_errors(target, "writing", size), arriving(target, tmp), open(tmp, "wb") as copy:
        for block in blocks(source):
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


# --- room on the disk -----------------------------------------------------------------------


def human_bytes(count: float) -> str:
    """ "1.5 GiB", "12 KiB", "7 bytes"."""
    unit = "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return f"{count:.0f} {unit}" if count >= 1000 else f"{count:.3g} {unit}"


def disk_needed(
    plan: JobPlan, bytes_per_frame: float, *, frames_done: int = 0, state_bytes: int = 0
) -> int:
    """Bytes that a job still takes at its peak: parts, states, and the output joined from parts.

    ``bytes_per_frame`` is of the encoded video; ``frames_done`` are already in parts on the disk;
    ``state_bytes`` is the size of one sampler state. InputError for numbers out of range.
    """
    if bytes_per_frame < 0 or state_bytes < 0 or not 0 <= frames_done <= plan.frames:
        raise InputError(
            f"{bytes_per_frame} bytes a frame, {state_bytes} a state, {frames_done} of "
            f"{plan.frames} frames done: expected none below 0 and not more frames than there are."
        )
    video = (2 * plan.frames - frames_done) * bytes_per_frame
    return int(video) + 1 + _STATES * state_bytes + _BYTES_PER_PART * plan.parts


def free_bytes(folder: str | os.PathLike[str]) -> int:
    """Bytes that may be written to the disk of ``folder``, which need not exist yet.

    Raises JobFolderError if the system does not say.
    """
    path = Path(os.path.abspath(folder))
    while not path.is_dir() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError as error:
        raise JobFolderError(f"The free space of {path} is unknown: {error.strerror}.") from error


def check_space(folder: str | os.PathLike[str], need: int) -> None:
    """Raises DiskFullError unless the disk of ``folder`` has ``need`` bytes free."""
    free = free_bytes(folder)
    if free < need:
        raise DiskFullError(
            f"{folder} needs {human_bytes(need)} but its disk has {human_bytes(free)} free. "
            f"Free {human_bytes(need - free)}, or choose a folder on another disk."
        )


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
