"""Hashes of weight files. The files are large, so each is read once and its hash is kept."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..callbacks import ignore
from ..errors import FileError
from ..files import Algorithm, hash_file, named_errors, read_plain, write_whole
from .files import stamp

CACHES: dict[Algorithm, str] = {"blake2b": "weights.json", "sha256": ".weights-sha256.json"}
"""Names of the files that keep the hashes; the first is in the folder of jobs."""

_MOST_CACHED = 256
_MOST_CACHE_BYTES = 1 << 20

log = logging.getLogger(__name__)


def weights_hash(
    path: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    algorithm: Algorithm = "blake2b",
    check_cancelled: Callable[[], None] = ignore,
    advance: Callable[[int], None] = ignore,
) -> str:
    """BLAKE2b or SHA-256 (64 hex digits) of a weight file, computed once and kept in ``root``.

    The file is read again if its size or modification time changed. Callbacks and errors are those
    of ``hash_file``.
    """
    known = known_hash(path, root, algorithm)
    if known is not None:
        return known
    real = Path(os.path.realpath(path))
    before = _size_and_time(real)
    found = hash_file(real, check_cancelled, algorithm=algorithm, advance=advance)
    if _size_and_time(real) == before:
        _remember(Path(root) / CACHES[algorithm], str(real), [*before, found])
    return found


def known_hash(
    path: str | os.PathLike[str], root: str | os.PathLike[str], algorithm: Algorithm
) -> str | None:
    """The hash that ``weights_hash`` has kept of the unchanged file; None if it must be read."""
    real = Path(os.path.realpath(path))
    known = _read_cache(Path(root) / CACHES[algorithm]).get(str(real))
    return known[2] if known is not None and known[:2] == _size_and_time(real) else None


def _size_and_time(path: Path) -> list[int]:
    with named_errors(path, "reading"):
        return [*stamp(path)]


def _read_cache(file: Path) -> dict[str, list[Any]]:
    """Entries path -> [size, mtime_ns, hash]; malformed ones are left out."""
    if not os.path.lexists(file):
        return {}
    try:
        found = json.loads(read_plain(file, _MOST_CACHE_BYTES))
    except (FileError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read; the hashes of weights are computed again (%s)", file, error)
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
        with named_errors(file.parent, "creating"):
            file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(newest, indent=1).encode("ascii"))
    except FileError as error:
        # Only time is lost: the hash itself is known.
        log.warning("%s", error)
