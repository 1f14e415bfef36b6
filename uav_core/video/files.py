"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..files import BLOCK, arriving, free_bytes
from .errors import DiskFullError, UnwritableError

_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG)


def check_room(path: str | os.PathLike[str], needed: int) -> None:
    """Raise DiskFullError unless ``needed`` bytes can be written beside ``path``."""
    folder = os.path.dirname(os.path.abspath(path))
    _check_folder(folder)
    free = free_bytes(folder)
    if free < needed:
        raise DiskFullError(
            f"The disk of '{folder}' is too full: {needed} bytes are needed, {free} are free. Make "
            "room and run again."
        )


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        raise UnwritableError(
            f"The folder '{folder}' does not exist: expected an existing folder to write to."
        )


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write that becomes ``path`` once it is complete and on the disk.

    Until then it is ``path`` with ".tmp" added; after any error it is gone, and an earlier
    ``path`` is as it was. Raises DiskFullError or UnwritableError.
    """
    name = os.fspath(path)
    temporary, target = Path(name + ".tmp"), Path(os.path.abspath(name))
    _check_folder(str(target.parent))
    written = 0
    try:
        with arriving(target, temporary), open(temporary, "wb", buffering=BLOCK) as file:
            try:
                yield file
                file.flush()
            finally:
                written = os.fstat(file.fileno()).st_size
    except OSError as error:
        if isinstance(error, UnwritableError):
            raise
        raise _named(error, name, written) from error


def _named(error: OSError, name: str, written: int) -> UnwritableError:
    if error.errno in _FULL:
        reached = " (or a limit on the size of files is reached)" * (error.errno != errno.ENOSPC)
        return DiskFullError(
            f"The disk is full{reached}: '{name}' needs more than the {written} bytes written so "
            f"far, {free_bytes(Path(name).parent)} are free. Nothing is left of it; make room and "
            "run again."
        )
    return UnwritableError(
        f"'{name}' cannot be written ({error.strerror or error}): expected a folder that may be "
        "written to. Choose another folder, or change its permissions."
    )
