"""What makes two runs the same job."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..callbacks import ignore
from ..errors import InputError
from .errors import JobError
from .files import DIGEST_BYTES, ByteCount, feed, name_error, named_errors, read_plain, write_whole
from .plain import canonical

FORMAT_VERSION = 2
"""Of the manifest and of all that a job folder holds."""

Algorithm = Literal["blake2b", "sha256"]
WEIGHTS_CACHES: dict[Algorithm, str] = {
    "blake2b": "weights.json",
    "sha256": ".weights-sha256.json",
}
_ID_BYTES = 16
_MOST_CACHED = 256
_MOST_CACHE_BYTES = 1 << 20
_ID = re.compile(f"[0-9a-f]{{{2 * _ID_BYTES}}}")
_HEX = re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobInputs:
    """All that decides a job's result, as plain values.

    ``fingerprint`` of the input file; ``settings`` of the run; ``weights``: name -> hash in hex.
    ``name`` of the input is shown in lists and changes nothing: a renamed file is the same job.
    """

    fingerprint: Mapping[str, Any]
    settings: Mapping[str, Any]
    weights: Mapping[str, str]
    name: str = ""


def job_id(inputs: JobInputs) -> str:
    """32 hex digits: equal for equal inputs, another for any change.

    Raises InputError, naming the place, for values that are not plain.
    """
    for name, value in inputs.weights.items():
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{16,128}", value):
            raise InputError(f"The hash of weights {name!r:.80} is {value!r:.80}: expected hex.")
    body = {
        "fingerprint": inputs.fingerprint,
        "settings": inputs.settings,
        "weights": inputs.weights,
        "version": FORMAT_VERSION,
    }
    return hashlib.blake2b(canonical(body, "inputs"), digest_size=_ID_BYTES).hexdigest()


def is_job_id(name: str) -> bool:
    """Whether ``name`` has the form of a job's id, and so of its folder's name."""
    return _ID.fullmatch(name) is not None


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
    real, cache_file = Path(os.path.realpath(path)), Path(root) / WEIGHTS_CACHES[algorithm]
    size, changed = _size_and_time(real)
    digest = (
        hashlib.sha256() if algorithm == "sha256" else hashlib.blake2b(digest_size=DIGEST_BYTES)
    )
    count = ByteCount(progress, size)
    read = feed(real, digest, advance=count, check_cancelled=check_cancelled)
    if _size_and_time(real) == (size, changed) and read == size:
        _remember(cache_file, str(real), [size, changed, digest.hexdigest()])
    return digest.hexdigest()


def known_hash(
    path: str | os.PathLike[str], root: str | os.PathLike[str], algorithm: Algorithm
) -> str | None:
    """What ``weights_hash`` has kept of the file as it is now; None if it would have to read it."""
    real = Path(os.path.realpath(path))
    known = _read_cache(Path(root) / WEIGHTS_CACHES[algorithm]).get(str(real))
    return known[2] if known is not None and known[:2] == [*_size_and_time(real)] else None


def _size_and_time(path: Path) -> tuple[int, int]:
    with named_errors(path, "reading"):
        found = os.stat(path)
    return found.st_size, found.st_mtime_ns


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
        and _HEX.fullmatch(entry[2]) is not None
    )


def _remember(file: Path, key: str, entry: list[Any]) -> None:
    entries = _read_cache(file)
    entries.pop(key, None)
    entries[key] = entry
    newest = dict(list(entries.items())[-_MOST_CACHED:])
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(newest, indent=1).encode("ascii"))
    except OSError as error:
        log.warning("%s", name_error(error, file, "writing"))
    except JobError as error:
        # Only time is lost: the hash itself is known.
        log.warning("%s", error)
