"""What every module that writes files needs: they appear whole, and stay after a crash."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BINARY = getattr(os, "O_BINARY", 0)
# Without O_NONBLOCK, opening a pipe waits for its other end.
PLAIN = BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
"""Flags to open a regular file, and nothing else, with."""


@contextmanager
def arriving(path: Path, partial: Path) -> Iterator[None]:
    """Inside, write ``partial``; afterwards it has become ``path`` and is on the disk.

    After a crash at any point ``path`` has its old content or the new. After an error it is as it
    was, and ``partial``, which must be in the same folder, is gone. Lets OSError through.
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
    """Write a safetensors file that is there whole, or not at all. Raises OSError."""
    from safetensors.torch import save_file  # torch takes seconds, and few who import this need it

    # A name of its own per run, so that two runs at once cannot write into each other's file.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with arriving(path, partial):
        save_file(dict(tensors), partial, metadata)


def move_over(source: Path, target: Path) -> None:
    """Rename over ``target`` in one step; OSError if it cannot be done."""
    for wait in (0.02, 0.1, 0.3, 0.6):
        try:
            return os.replace(source, target)
        except PermissionError:
            # On Windows a scanner or a reader of the old file stands in the way for a moment.
            if sys.platform != "win32":
                raise
            time.sleep(wait)
    os.replace(source, target)


def sync_file(path: Path) -> None:
    """Wait until the content of a regular file is on the disk."""
    # Windows flushes only what is open for writing.
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
    finally:
        os.close(number)
