"""Hashes of weight files, which are large: each is read once and its hash then kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ..callbacks import ignore
from ..jobs.errors import JobError
from ..jobs.files import blocks, named_errors, read_plain, write_whole

Algorithm = Literal["blake2b", "sha256"]
CACHES: dict[Algorithm, str] = {"blake2b": "weights.json", "sha256": ".weights-sha256.json"}
"""File names; the first lies in the folder of jobs."""

_MOST_CACHED = 256
_MOST_CACHE_BYTES = 1 << 20

log = logging.getLogger(__name__)


def weights_hash(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    algorithm: Algorithm = "blake2b",
    progress: Callable[[int, int], None] = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> str:
    """BLAKE2b or SHA-256 (64 hex digits) of a weight file, read once and then kept in ``root``.

    It is read again when its size or time of change differs. ``progress(done, total)`` counts
    bytes. Raises JobFolderError if the file cannot be read.
    """
    known = known_hash(path, root, algorithm)
    if known is not None:
        return known
    real = Path(os.path.realpath(path))
    before, done = _size_and_time(real), 0
    digest = hashlib.sha256() if algorithm == "sha256" else hashlib.blake2b(digest_size=32)
    for block in blocks(real):
        check_cancelled()
        digest.update(block)
        done += len(block)
        progress(min(done, before[0]), before[0])
    if _size_and_time(real) == before and done == before[0]:
        _remember(Path(root) / CACHES[algorithm], str(real), [*before, digest.hexdigest()])
    return digest.hexdigest()


def known_hash(
    path: str | os.PathLike[str], root: str | os.PathLike[str], algorithm: Algorithm
) -> str | None:
    """What ``weights_hash`` has kept of the file as it is now; None if it would have to read it."""
    real = Path(os.path.realpath(path))
    known = _read_cache(Path(root) / CACHES[algorithm]).get(str(real))
    return known[2] if known is not None and known[:2] == _size_and_time(real) else None


def _size_and_time(path: Path) -> list[int]:
    with named_errors(path, "reading"):
        found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def _read_cache(file: Path) -> dict[str, list[Any]]:
    """Entries path -> [size, mtime_ns, hash]; those that are not well-formed are left out."""
    if not os.path.lexists(file):
        return {}
    try:
        found = json.loads(read_plain(file, _MOST_CACHE_BYTES))
    except (JobError, ValueError, RecursionError) as error:
        log.warning("%s is not readable; weights are hashed again (%s)", file, error)
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: entry for key, entry in found.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and [type(value) for value in entry] == [int, int, str]
        and re.fullmatch("[0-9a-f]{64}", entry[2]) is not None
    )


def _remember(file: Path, key: str, entry: list[Any]) -> None:
    entries = _read_cache(file)
    entries.pop(key, None)
    entries[key] = entry
    newest = dict(list(entries.items())[-_MOST_CACHED:])
    try:
        with named_errors(file.parent, "making"):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(newest, indent=1).encode("ascii"))
    except JobError as error:
        # Only time is lost: the hash itself is known.
        log.warning("%s", error)
