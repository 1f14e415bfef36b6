"""Processes that run a module of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def module_process(name: str, arguments: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Start ``python -m name arguments``, independent of the working directory."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", name, *arguments], env=environment, **options)
