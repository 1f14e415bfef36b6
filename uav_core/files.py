"""Files: read without following links, written whole or not at all; checks of disk space."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from .callbacks import ignore
from .errors import DiskFullError, FileError
from .paths import MOST_NAME_BYTES, TMP, output_name

if TYPE_CHECKING:
    from torch import Tensor

BINARY = getattr(os, "O_BINARY", 0)
# O_NONBLOCK because opening a pipe would otherwise wait for its other end.
PLAIN = BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags to open a regular file, without following a link or waiting for a pipe."""

Algorithm = Literal["blake2b", "sha256"]
BLOCK = 1 << 20
# No space on the disk, or a limit on the space of one user or one file is reached.
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


# --- named errors ---------------------------------------------------------------------------


def name_error(error: OSError, path: Path, doing: str, need: int = 0) -> FileError:
    """The named error for a system error while ``doing`` something with ``path``."""
    if error.errno in _FULL:
        free = "unknown"
        with suppress(FileError):
            free = human_bytes(free_bytes(path.parent))
        limit = " (or a limit on the size of files is reached)" * (error.errno != errno.ENOSPC)
        return DiskFullError(
            f"The disk is full{limit} while {doing} {path}: at least {human_bytes(need)} needed, "
            f"{free} free. Free some space and run the same again: it continues where it stopped."
        )
    if error.errno in _REFUSED:
        return FileError(
            f"No permission for {doing} {path} ({error.strerror}). Choose another folder, or "
            "change the permissions."
        )
    return FileError(
        f"Error while {doing} {path}: {error.strerror or error}. Check the path, or choose "
        "another folder."
    )


@contextmanager
def named_errors(path: Path, doing: str, need: int = 0) -> Iterator[None]:
    """Turn an OSError inside the block into a FileError or DiskFullError."""
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
    """Open a regular file for reading; OSError if it is a link, a folder or a pipe."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise OSError(errno.EINVAL, "Not a plain file", str(path))
    return os.fdopen(os.open(path, os.O_RDONLY | PLAIN), "rb")


def read_plain(path: Path, most: int) -> bytes:
    """The content of a regular file of at most ``most`` bytes; FileError otherwise."""
    with named_errors(path, "reading"), open_plain(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise FileError(f"{path} is larger than {human_bytes(most)}: expected a smaller file.")
    return data


def blocks(path: Path) -> Iterator[bytes]:
    """The content of a regular file in pieces of 1 MiB; FileError if it cannot be read."""
    with named_errors(path, "reading"), open_plain(path) as file:
        while block := file.read(BLOCK):
            yield block


def hash_file(
    path: str | os.PathLike[str],
    check_cancelled: Callable[[], None] = ignore,
    *,
    algorithm: Algorithm = "blake2b",
    advance: Callable[[int], None] = ignore,
) -> str:
    """BLAKE2b or SHA-256 (64 hex digits) of a regular file; FileError if it cannot be read.

    ``advance(bytes)`` and ``check_cancelled()`` are called for every block of 1 MiB.
    """
    digest = hashlib.blake2b(digest_size=32) if algorithm == "blake2b" else hashlib.sha256()
    for block in blocks(Path(path)):
        check_cancelled()
        digest.update(block)
        advance(len(block))
    return digest.hexdigest()


# --- writing --------------------------------------------------------------------------------


@contextmanager
def arriving(path: Path, partial: Path) -> Iterator[None]:
    """Rename ``partial``, written inside the block, to ``path`` once it is on the disk.

    After a crash at any point ``path`` has its old content or the new. After an error ``path`` is
    unchanged, and ``partial``, which must be in the same folder, is gone. OSErrors pass through.
    """
    try:
        yield
        sync_file(partial)
        move_over(partial, path)
    finally:
        with suppress(OSError):
            os.unlink(partial)
    sync_folder(path.parent)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file  # here, as torch takes seconds and is rarely needed

    # A name of its own per run, so that two runs at once cannot write into each other's file.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with arriving(path, partial):
        partial.touch(exist_ok=False)
        usual = partial.stat().st_mode
        try:
            save_file(dict(tensors), partial, metadata)
        except SafetensorError as error:
            raise _system_error(error) from error
        if partial.stat().st_mode != usual:
            # safetensors 0.8 lets only the owner read its files. Some network drives know no modes.
            with suppress(OSError):
                partial.chmod(stat.S_IMODE(usual))


def _system_error(error: Exception) -> OSError:
    """The OSError that safetensors met, of which it tells only the number, in its message."""
    found = re.search(r"\(os error ([0-9]+)\)", str(error))
    number = int(found[1]) if found else errno.EIO
    # The last is for Windows, where the number is one of its own, from which Python finds errno.
    return OSError(number, str(error), None, number if found else None)


def move_over(source: Path, target: Path) -> None:
    """Rename over ``target`` in one step; OSError if it cannot be done."""
    for wait in (0.02, 0.1, 0.3, 0.6):
        try:
            return os.replace(source, target)
        except PermissionError:
            # On Windows a virus scanner or a reader may block the old file for a moment.
            if sys.platform != "win32":
                raise
            time.sleep(wait)
    os.replace(source, target)


def sync_file(path: Path) -> None:
    """Wait until the content of a regular file is on the disk."""
    # Windows flushes only files that are open for writing.
    mode = os.O_RDWR if sys.platform == "win32" else os.O_RDONLY
    file = os.open(path, mode | PLAIN)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until the names in a folder are on the disk; Windows needs no such flush."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some shared and network folders cannot do it; the files themselves have been flushed.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(number)


_RANDOM = 4  # bytes in the name of a partial file


@contextmanager
def writing(path: Path, need: int = 0) -> Iterator[BinaryIO]:
    """A file to write that becomes ``path`` once it is complete and on the disk.

    Until then it has a name of its own that ends in ".tmp". After an error it is gone, and an
    earlier ``path`` is unchanged. Of several runs that write one ``path`` at once, the last to
    finish is there, whole. Raises DiskFullError or FileError; ``need`` is the final size in bytes,
    if known.
    """
    partial, written = _partial(path), 0
    try:
        with arriving(path, partial), open(partial, "xb", buffering=BLOCK) as file:
            try:
                yield file
                file.flush()
            finally:
                written = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise name_error(error, path, "writing", max(need, written)) from error


def _partial(path: Path) -> Path:
    """A name beside ``path`` that no other run has, so that none writes into another's file."""
    return path.with_name(f"{_begin(path)}.{secrets.token_hex(_RANDOM)}{TMP}")


def _begin(path: Path) -> str:
    """How the names of partial files begin; cut, as every name of ``output_name`` must fit."""
    room = MOST_NAME_BYTES - len(f".{TMP}") - 2 * _RANDOM
    return path.name.encode(errors="ignore")[:room].decode(errors="ignore")


def remove_partials(path: Path) -> None:
    """Delete what killed runs of ``writing`` left of ``path``; only where no other may write it."""
    for left in path.parent.glob(f"{glob.escape(_begin(path))}.{'?' * 2 * _RANDOM}{TMP}"):
        left.unlink(missing_ok=True)


def copy_whole(source: Path, target: Path, check_cancelled: Callable[[], None] = ignore) -> None:
    """Copy a file; ``target`` appears once it is complete. Raises as ``writing``."""
    with named_errors(source, "reading"):
        size = os.lstat(source).st_size
    with writing(target, size) as copy:
        for block in blocks(source):
            check_cancelled()
            copy.write(block)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file; after a crash it has its old content or the new. Raises as ``writing``."""
    with writing(path, len(data)) as file:
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


def free_bytes(folder: str | os.PathLike[str]) -> int:
    """Bytes that may be written to the disk of ``folder``, which need not exist yet.

    Raises FileError if the system does not say.
    """
    path = Path(os.path.abspath(folder))
    while not path.is_dir() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError as error:
        raise FileError(f"The free disk space of {path} is unknown: {error.strerror}.") from error


def check_space(folder: str | os.PathLike[str], need: int) -> None:
    """Raise DiskFullError unless the disk of ``folder`` has ``need`` bytes free."""
    free = free_bytes(folder)
    if free < need:
        raise DiskFullError(
            f"{folder} needs {human_bytes(need)} but its disk has {human_bytes(free)} free. "
            f"Free {human_bytes(need - free)}, or choose a folder on another disk."
        )


def check_target(folder: Path, name: str) -> None:
    """Make ``folder``, and check that a file ``name`` can be written into it.

    Raises UnsafePathError for a name that is invalid on some system, FileError or DiskFullError.
    """
    output_name(name)
    with named_errors(folder, "creating"):
        os.makedirs(folder, exist_ok=True)
    with named_errors(folder, "writing into"), tempfile.NamedTemporaryFile(suffix=TMP, dir=folder):
        pass
