"""The names of the files in a job folder."""

from __future__ import annotations

import re
from collections.abc import Iterable

FOLDER = "upscale_a_video_jobs"
"""What callers name the folder of all jobs, beside the videos that come of them."""

LOCK = "job.lock"
MANIFEST = "manifest.json"
BACKUP = "manifest.json.bak"
TMP = ".tmp"

STATE = "state_[0-9]{6,9}[.]bin"
_PART = "part_[0-9]{6,9}[.]mkv"
_MOST_STATE = 10**9

_DATA = re.compile(f"(?:{_PART}|{STATE}|[^/]*{re.escape(TMP)})", re.DOTALL)


def part_name(index: int) -> str:
    """File name of an encoded part: part_000123.mkv."""
    return f"part_{index:06d}.mkv"


def next_state_name(taken: Iterable[str]) -> str:
    """A state's file name that is not ``taken``, one after the last of them."""
    names = list(taken)
    number = int(names[-1][len("state_") : -len(".bin")]) if names else 0
    while True:
        number = (number + 1) % _MOST_STATE
        name = f"state_{number:06d}.bin"
        if name not in names:
            return name


def is_data(name: str) -> bool:
    """Whether ``name`` is that of a part, a state or a half-written file."""
    return _DATA.fullmatch(name) is not None


def is_ours(name: str) -> bool:
    """Whether ``name`` is that of a job's file, other than the finished video."""
    return name in (LOCK, MANIFEST, BACKUP) or is_data(name)
