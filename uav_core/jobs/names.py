"""The names of the files in a job folder."""

from __future__ import annotations

import re

from ..paths import TMP

FOLDER = "upscale_a_video_jobs"
"""What callers name the folder of all jobs, beside the videos that come of them."""

LOCK = "job.lock"
MANIFEST, BACKUP = "manifest.json", "manifest.json.bak"

STATE = "state_[0-9]{6,9}[.]bin"
_PART = "part_[0-9]{6,9}[.]mkv"
_RUN = "run_[0-9]{3}[.]lock"


def part_name(index: int) -> str:
    """File name of an encoded part: part_000123.mkv."""
    return f"part_{index:06d}.mkv"


def state_name(number: int) -> str:
    """File name of a sampler state: state_000001.bin."""
    return f"state_{number:06d}.bin"


def run_name(number: int) -> str:
    """Name of the file that a run holds while it works on the job: run_000.lock."""
    return f"run_{number:03d}.lock"


def is_run(name: str) -> bool:
    """Whether ``name`` is that of a file a run holds."""
    return re.fullmatch(_RUN, name) is not None


def is_lock(name: str) -> bool:
    """Whether ``name`` is that of a file that a run holds or held."""
    return name == LOCK or is_run(name)


def is_data(name: str) -> bool:
    """Whether ``name`` is that of a part, a state or a half-written file."""
    return re.fullmatch(f"{_PART}|{STATE}", name) is not None or name.endswith(TMP)


def is_ours(name: str) -> bool:
    """Whether ``name`` is that of a job's file, other than the finished video."""
    return name in (MANIFEST, BACKUP) or is_data(name) or is_lock(name)
