"""Space on the disk: what a job needs, and what there is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import InputError
from .errors import DiskFullError, JobFolderError
from .plan import JobPlan

# A part's record in the manifest, which is there twice and a third time while it is written.
_BYTES_PER_PART = 3 * 256
# Two states are kept while the next is written.
_STATES = 3


def human_bytes(count: float) -> str:
    """ "1.5 GiB", "12 KiB", "7 bytes"."""
    unit = "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            break
        count, unit = count / 1024, larger
    return f"{count:.0f} {unit}" if count >= 1000 else f"{count:.3g} {unit}"


def disk_needed(
    plan: JobPlan, bytes_per_frame: float, *, frames_done: int = 0, state_bytes: int = 0
) -> int:
    """Bytes that a job still takes at its peak: parts, states, and the output joined from parts.

    ``bytes_per_frame`` is of the encoded video; ``frames_done`` are already in parts on the disk;
    ``state_bytes`` is the size of one sampler state. InputError for numbers out of range.
    """
    if bytes_per_frame < 0 or state_bytes < 0 or not 0 <= frames_done <= plan.frames:
        raise InputError(
            f"{bytes_per_frame} bytes a frame, {state_bytes} a state, {frames_done} of "
            f"{plan.frames} frames done: expected none below 0 and not more frames than there are."
        )
    video = (2 * plan.frames - frames_done) * bytes_per_frame
    return int(video) + 1 + _STATES * state_bytes + _BYTES_PER_PART * plan.parts


def free_bytes(folder: str | os.PathLike[str]) -> int:
    """Bytes that may be written to the disk of ``folder``, which need not exist yet.

    Raises JobFolderError if the system does not say.
    """
    path = Path(os.path.abspath(folder))
    while not path.is_dir() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError as error:
        raise JobFolderError(f"The free space of {path} is unknown: {error.strerror}.") from error


def check_space(folder: str | os.PathLike[str], need: int) -> None:
    """Raises DiskFullError unless the disk of ``folder`` has ``need`` bytes free."""
    free = free_bytes(folder)
    if free < need:
        raise DiskFullError(
            f"{folder} needs {human_bytes(need)} but its disk has {human_bytes(free)} free. "
            f"Free {human_bytes(need - free)}, or choose a folder on another disk."
        )
