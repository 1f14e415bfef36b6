"""The names of the files in a job folder."""

from __future__ import annotations

import re
from collections.abc import Collection

FOLDER = "upscale_a_video_jobs"
"""What callers name the folder of all jobs, beside the videos that come of them."""

LOCK = "job.lock"
"""Held while the manifest is read and written."""
MOST_RUNS = 256
"""That may work on one job at the same time."""
MANIFEST = "manifest.json"
BACKUP = "manifest.json.bak"
TMP = ".tmp"

STATE = "state_[0-9]{6,9}[.]bin"
_PART = "part_[0-9]{6,9}[.]mkv"
_RUN = "run_[0-9]{3}[.]lock"

STATES_OF_A_SCENE = 2
"""That are kept; the older one serves if the newer is damaged."""

_DATA = re.compile(f"(?:{_PART}|{STATE}|[^/]*{re.escape(TMP)})", re.DOTALL)


def part_name(index: int) -> str:
    """File name of an encoded part: part_000123.mkv."""
    return f"part_{index:06d}.mkv"


def run_name(number: int) -> str:
    """Name of the file that a run holds while it works on the job: run_000.lock."""
    return f"run_{number:03d}.lock"


def next_state_name(scene: int, taken: Collection[str]) -> str:
    """A file name for a state of ``scene`` that is not ``taken``.

    Runs that work on different scenes never choose the same one.
    """
    numbers = range(STATES_OF_A_SCENE + 1)
    names = (f"state_{scene * len(numbers) + n + 1:06d}.bin" for n in numbers)
    return next(name for name in names if name not in taken)


def is_run(name: str) -> bool:
    """Whether ``name`` is that of a file a run holds."""
    return re.fullmatch(_RUN, name) is not None


def is_lock(name: str) -> bool:
    """Whether ``name`` is that of a file that a run holds or held."""
    return name == LOCK or is_run(name)


def is_data(name: str) -> bool:
    """Whether ``name`` is that of a part, a state or a half-written file."""
    return _DATA.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Whether ``name`` is that of a job's file, other than the finished video."""
    return name in (MANIFEST, BACKUP) or is_data(name) or is_lock(name)
