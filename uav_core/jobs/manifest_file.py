"""The manifest's file in a job folder, and the one before it."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from .errors import DamagedManifestError, JobError
from .files import read_plain, write_whole
from .manifest import Manifest
from .manifest_text import MOST_TEXT, manifest_text, parse_manifest
from .names import BACKUP, MANIFEST

log = logging.getLogger(__name__)


def read_manifest(folder: Path) -> tuple[Manifest, bool] | None:
    """The manifest of a job folder and whether it is the newest; None if there is none.

    The one before is used, with a warning, where the newest is missing or cannot be used. Raises
    DamagedManifestError if neither can, or if it belongs to another folder.
    """
    problems: list[JobError] = []
    for name in (MANIFEST, BACKUP):
        path = folder / name
        try:
            manifest = parse_manifest(read_plain(path, MOST_TEXT), str(path))
            if manifest.id != folder.name:
                raise DamagedManifestError(
                    f"{path} belongs to job {manifest.id}. Move it back to a folder of that name, "
                    "or delete this one."
                )
        except JobError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                continue
            problems.append(error)
            continue
        if name == BACKUP:
            log.warning(
                "Job %s continues from the manifest before the last: %s",
                folder.name,
                problems[0] if problems else f"{MANIFEST} is missing",
            )
        return manifest, name == MANIFEST
    if problems:
        raise DamagedManifestError(str(problems[0])) from problems[0]
    return None


def manifest_stamp(folder: Path) -> tuple[int, ...]:
    """Another value whenever another manifest was written."""
    try:
        found = os.lstat(folder / MANIFEST)
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def write_manifest(folder: Path, manifest: Manifest, previous: Manifest | None) -> None:
    """Write the manifest and keep ``previous``, the last good one, beside it.

    Raises DiskFullError or JobFolderError; a good manifest is in the folder all the same.
    """
    if previous is not None:
        write_whole(folder / BACKUP, manifest_text(previous))
    write_whole(folder / MANIFEST, manifest_text(manifest))
