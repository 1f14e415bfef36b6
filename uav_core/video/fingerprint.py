"""Fingerprints of files, to tell whether a source is still the file that a run began with."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from .errors import InputChangedError

WHOLE_BELOW = 64 << 20
BLOCK = 1 << 20
BLOCKS = 64


@dataclass(frozen=True)
class Fingerprint:
    """Size in bytes, time of the last change in ns, and a hash (hex) of the contents."""

    size: int
    mtime_ns: int
    blake2b: str


def fingerprint(path: str | os.PathLike[str]) -> Fingerprint:
    """Fingerprint of a file.

    The hash covers the whole of a file below 64 MiB. Of a larger file it covers the first and the
    last MiB and others evenly between them, 64 in all. Raises OSError if the file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size < WHOLE_BELOW:
            starts = range(0, status.st_size, BLOCK)
        else:
            last = status.st_size - BLOCK
            starts = [last * i // (BLOCKS - 1) for i in range(BLOCKS)]
        for start in starts:
            file.seek(start)
            digest.update(file.read(BLOCK))
    return Fingerprint(status.st_size, status.st_mtime_ns, digest.hexdigest())


def check_unchanged(known: Fingerprint, path: str | os.PathLike[str]) -> None:
    """Raise InputChangedError unless the file has the same contents as when ``known`` was taken.

    A copy with another modification time passes: only the contents count.
    """
    try:
        now = fingerprint(path)
    except OSError as error:
        raise InputChangedError(
            f"'{os.fspath(path)}' can no longer be read ({error.strerror}). Put the file back, or "
            "start a new run."
        ) from error
    if (now.size, now.blake2b) != (known.size, known.blake2b):
        size = "" if now.size == known.size else f" (it had {known.size} bytes, now {now.size})"
        raise InputChangedError(
            f"'{os.fspath(path)}' has changed since this run began{size}. Put the original file "
            "back, or start a new run."
        )
