"""The names of the files in a job folder."""

from __future__ import annotations

import re

from ..paths import TMP

FOLDER = "upscale_a_video_jobs"
"""The usual name of the folder of all jobs, which is beside the finished videos."""

LOCK = "job.lock"
MANIFEST, BACKUP = "manifest.json", "manifest.json.bak"

PART, STATE, RUN = "part_{:06d}.mkv", "state_{:06d}.bin", "run_{:03d}.lock"
"""Numbered names: encoded parts, sampler states, and files that runs lock while they work."""

is_state = re.compile("state_[0-9]{6,9}[.]bin").fullmatch
is_run = re.compile("run_[0-9]{3}[.]lock").fullmatch
_is_part = re.compile("part_[0-9]{6,9}[.]mkv").fullmatch
# As ``files.save_tensors`` names a state while it is written.
_is_half_state = re.compile("[.]state_[0-9]{6,9}[.]bin[.][0-9a-f]{8}[.]partial").fullmatch


def is_lock(name: str) -> bool:
    """Whether ``name`` is that of a lock file."""
    return name == LOCK or is_run(name) is not None


def is_half_written(name: str) -> bool:
    """Whether ``name`` is that of a file that is still written, or that a crash left so."""
    return name.endswith(TMP) or _is_half_state(name) is not None


def is_data(name: str) -> bool:
    """Whether ``name`` is that of a part, a state or a half-written file."""
    return bool(_is_part(name) or is_state(name)) or is_half_written(name)


def is_ours(name: str) -> bool:
    """Whether ``name`` is that of a job's file, other than the finished video."""
    return name in (MANIFEST, BACKUP) or is_data(name) or is_lock(name)
