"""Peak memory of long videos by their length, each in a process of its own.

    python scripts/bench_long.py [--frames 200 2000] [--size 48x32] [--steps 2]

Upscales a generated clip of moving textures with the included weights and the command line, and
prints each process's peak memory and its ratio to the shortest clip's. Linux and macOS.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from uav_core.video import EncodeParams, encode_part  # noqa: E402

MIB = 1 << 20
KILOBYTES = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes

log = logging.getLogger("bench_long")


def write_clip(path: Path, frames: int, width: int, height: int) -> None:
    """A texture that moves and slowly changes."""
    noise = torch.rand((1, 3, height // 4 + 8, width // 4 + 8), generator=torch.manual_seed(1))
    large = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic")[0].clamp(0, 1)

    def one(i: int) -> torch.Tensor:
        x, y = i % 16, (i // 3) % 16
        return large[:, y : y + height, x : x + width] * 2 - 1

    params = EncodeParams("h264", ".mkv", crf=12, rate=Fraction(25))
    encode_part(path, (one(i) for i in range(frames)), params, (width, height))


def peak(source: Path, target: Path, steps: int) -> tuple[int, float]:
    """Peak memory in bytes and seconds of one run."""
    words = ["-m", "uav_core.cli", str(source), str(target), "--steps", str(steps)]
    words += ["--propagation-steps", "last 1", "--cut-detection", "built-in"]
    started = time.monotonic()
    with (target.parent / f"{target.stem}.log").open("wb") as output:
        process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit((target.parent / f"{target.stem}.log").read_text()[-2000:])
    return usage.ru_maxrss * KILOBYTES, time.monotonic() - started


def main() -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--size", default="48x32", help="of the input")
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    first = 0
    log.info("| frames | peak memory | ratio | time | per frame |")
    log.info("| ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for frames in options.frames:
            source, target = folder / f"{frames}.mkv", folder / f"{frames}_4x.mp4"
            write_clip(source, frames, width, height)
            bytes_, seconds = peak(source, target, options.steps)
            first = first or bytes_
            log.info(
                "| %d | %.0f MiB | %.2f | %.0f s | %.3f s |",
                frames,
                bytes_ / MIB,
                bytes_ / first,
                seconds,
                seconds / frames,
            )


if __name__ == "__main__":
    main()
