"""Temporary folders for one run, removed after it however it ends."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import named_errors
from .lock import LockedFile
from .names import LOCK


@contextmanager
def passing_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in ``parent``, removed at the end.

    A killed run cannot remove its folder. The next run removes it, as it finds it unlocked.

    Args:
        parent: a folder that exists.
        prefix: the start of the names of all these folders, and of no other file.

    Raises:
        FileError: the folder cannot be made or locked.
    """
    for left in parent.glob(f"{prefix}*"):
        lock = LockedFile.take(left / LOCK) if _is_ours(left) else None
        if lock is not None:
            _remove(left, lock)
    lock = None
    while lock is None:  # another run may take the new folder for an old one and remove it
        with named_errors(parent, "writing into"):
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = LockedFile.take(folder / LOCK)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _is_ours(folder: Path) -> bool:
    """Whether this module made ``folder``: it is empty or has the lock file."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = os.listdir(folder)
    return not names or LOCK in names


def _remove(folder: Path, lock: LockedFile) -> None:
    """Remove a locked folder. What the system refuses to remove is left to a later run."""
    if sys.platform == "win32":  # Windows cannot remove an open file
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
