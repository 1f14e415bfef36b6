"""Measure the time that the pack adds to ComfyUI's start: the fastest of several new processes.

    python -m bench.start [--repeat N] [--limit SECONDS]

This is the time in which ComfyUI imports the pack, gets its nodes and reads their schemas.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from pathlib import Path

from scripts.env.layout import ROOT, comfyui_path, environment_python, tested_versions

log = logging.getLogger("bench_start")


def start(version: str) -> tuple[float, float]:
    """Start ComfyUI once. Returns the wall and processor seconds that the pack takes."""
    loader = Path(__file__).parents[1] / "scripts" / "server" / "load_pack.py"
    command = [environment_python(), loader, comfyui_path(version), ROOT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])[0]
    return report["seconds"], report["cpu"]


def main() -> int:
    """Log a line for every version. Returns 1 if one of them takes longer than the limit."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--limit", type=float, default=0.3)
    options = parser.parse_args()
    slow = False
    for version in tested_versions():
        starts = [start(version) for _ in range(options.repeat)]
        clock, cpu = map(min, zip(*starts, strict=True))
        slow = slow or clock > options.limit
        log.info("ComfyUI %s: the pack adds %.2f s, %.2f s of them computing", version, clock, cpu)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
