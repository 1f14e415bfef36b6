"""Measure only the peak memory of long videos by their length, at any frame size.

    python -m bench.long [--frames 200 2000] [--size 24x16] [--steps 1] [--device cpu]

`make bench` measures the same with few frames; see `bench/studies/long_video.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.studies.long_video import SIZE, LongVideoError, long_table, measure_long  # noqa: E402

log = logging.getLogger("bench_long")


def main() -> int:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--size", default="x".join(map(str, SIZE)), help="size of the input")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    o = parser.parse_args()
    width, height = map(int, o.size.split("x"))
    try:
        runs = measure_long(
            o.frames, (width, height), o.steps, o.device, lambda run: log.info("%s", run)
        )
    except LongVideoError as error:
        log.error("%s", error)
        return 1
    log.info("\n%s", long_table(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
