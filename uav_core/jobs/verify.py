"""Whether the files that a manifest records are there and whole."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..callbacks import ignore
from .errors import JobFolderError
from .files import ByteCount, FileDigest, hash_file, is_plain
from .manifest import Manifest, OutputRecord, PartRecord, StateRecord
from .names import part_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verified:
    """The records of a manifest whose files are whole."""

    parts: tuple[PartRecord, ...]
    states: tuple[StateRecord, ...]
    output: OutputRecord | None

    def same_as(self, manifest: Manifest) -> bool:
        """Whether nothing is missing."""
        recorded = (manifest.parts, manifest.states, manifest.output)
        return recorded == (self.parts, self.states, self.output)


def verify(
    manifest: Manifest,
    folder: Path,
    outputs: Sequence[tuple[Path, OutputRecord]],
    *,
    progress: Callable[[int, int], None] = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> Verified:
    """Read every recorded file and keep the records that hold; the others are logged.

    ``outputs`` are the places where the output may lie, and how each would be recorded.
    ``progress(done, total)`` counts bytes. Files are read only if their size is right.
    """
    records = [*manifest.parts, *manifest.states, *(record for _, record in outputs[:1])]
    advance = ByteCount(progress, sum(record.bytes for record in records))

    def holds(path: Path, record: PartRecord | StateRecord | OutputRecord) -> bool:
        problem = _problem(path, record, advance, check_cancelled)
        if problem:
            log.warning("Job %s: %s %s; it is done again", manifest.id, path.name, problem)
        return not problem

    return Verified(
        tuple(p for p in manifest.parts if holds(folder / part_name(p.index), p)),
        tuple(s for s in manifest.states if holds(folder / s.file, s)),
        next((record for path, record in outputs if holds(path, record)), None),
    )


def _problem(
    path: Path,
    record: PartRecord | StateRecord | OutputRecord,
    advance: Callable[[int], None],
    check_cancelled: Callable[[], None],
) -> str:
    """What is wrong with a file, or ""."""
    check_cancelled()
    if not os.path.lexists(path):
        return "is missing"
    if not is_plain(path):
        return "is not a plain file"
    size = os.lstat(path).st_size
    if size != record.bytes:
        return f"has {size} bytes instead of {record.bytes}"
    try:
        found = hash_file(path, advance=advance, check_cancelled=check_cancelled)
    except JobFolderError as error:
        return f"cannot be read ({error})"
    if found != FileDigest(record.bytes, record.blake2b):
        return "has another checksum than when it was finished"
    return ""
