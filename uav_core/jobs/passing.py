"""Folders of files that are needed for one run only, and are gone after it, however it ends."""

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

    A run that is killed cannot remove its own: the next one does, as it finds it unlocked.

    Args:
        parent: a folder that is there.
        prefix: how the names of all these folders begin, and of nothing else.

    Raises:
        FileError: the folder cannot be made or locked.
    """
    for left in parent.glob(f"{prefix}*"):
        lock = LockedFile.take(left / LOCK) if _is_ours(left) else None
        if lock is not None:
            _remove(left, lock)
    lock = None
    while lock is None:  # another run may take it for one that was left
        with named_errors(parent, "writing into"):
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        lock = LockedFile.take(folder / LOCK)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _is_ours(folder: Path) -> bool:
    """Whether it was made here: others do not have the lock, or are not empty."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = os.listdir(folder)
    return not names or LOCK in names


def _remove(folder: Path, lock: LockedFile) -> None:
    """Remove a folder that is held. What a system refuses is left to a later run."""
    if sys.platform == "win32":  # it removes no open file
        lock.release()
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
