"""Peak memory of long videos by length, each in a separate process. For Linux and macOS."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from uav_core.callbacks import ignore
from uav_core.video import EncodeParams, encode_part

from .report import mib, table

ROOT = Path(__file__).resolve().parents[2]
SIZE = (24, 16)
FRAMES, QUICK_FRAMES = (50, 150), (8, 16)
# Runs the command, then prints its peak memory.
_CALL = """
import sys
from uav_core.cli.main import main
from uav_core.devices.memory import peak_ram
code = main(sys.argv[1:])
print(peak_ram())
sys.exit(code)
"""


class LongVideoError(Exception):
    """A run failed; the message has the end of its log."""


@dataclass(frozen=True)
class LongRun:
    """One video upscaled by the command: peak resident memory in bytes, and seconds."""

    frames: int
    peak: int
    seconds: float


def measure_long(
    lengths: Sequence[int],
    size: tuple[int, int] = SIZE,
    steps: int = 1,
    device: str = "cpu",
    done: Callable[[LongRun], None] = ignore,
) -> list[LongRun]:
    """Upscale generated clips of these lengths and (width, height) with the included weights.

    ``done`` is called after every run. Raises LongVideoError if one fails.
    """
    runs = []
    with tempfile.TemporaryDirectory() as name:
        for frames in lengths:
            source, target = Path(name, f"{frames}.mkv"), Path(name, f"{frames}_4x.mp4")
            write_clip(source, frames, *size)
            runs.append(LongRun(frames, *_peak(source, target, steps, device)))
            done(runs[-1])
    return runs


def write_clip(path: Path, frames: int, width: int, height: int) -> None:
    """Write a clip of a moving texture."""
    params = EncodeParams("h264", ".mkv", crf=12, rate=Fraction(25))
    encode_part(path, moving(0, frames, frames, width, height), params, (width, height))


def moving(first: int, stop: int, scene: int, width: int, height: int) -> Iterator[torch.Tensor]:
    """Frames (3, height, width) in [-1, 1] of a moving texture, a new one each ``scene`` frames."""
    shape, made = (1, 3, height // 4 + 8, width // 4 + 8), -1
    for i in range(first, stop):
        number, k = divmod(i, scene)
        if number != made:
            noise = torch.rand(shape, generator=torch.manual_seed(1 + number))
            large = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic")[0]
            made = number
        x, y = k % 16, (k // 3) % 16
        yield large.clamp(0, 1)[:, y : y + height, x : x + width] * 2 - 1


def _peak(source: Path, target: Path, steps: int, device: str) -> tuple[int, float]:
    words = ["-c", _CALL, str(source), str(target), "--steps", str(steps)]
    words += ["--propagation-steps", "last 1", "--cut-detection", "built-in", "--device", device]
    started = time.monotonic()
    ended = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    if ended.returncode:
        raise LongVideoError(ended.stderr[-2000:])
    return int(ended.stdout.split()[-1]), time.monotonic() - started


def long_json(runs: Sequence[LongRun]) -> list[dict[str, Any]]:
    """The runs as plain data, with the ratio of each peak to the first."""
    return [{**asdict(run), "ratio": run.peak / runs[0].peak} for run in runs]


def long_table(runs: Sequence[LongRun]) -> str:
    """The runs as a Markdown table."""
    rows = [
        [
            f"{run.frames:,} frames",
            mib(run.peak),
            f"**{run.peak / runs[0].peak:.2f}**",
            f"{run.seconds:.0f} s",
            f"{run.seconds / run.frames:.3f} s",
        ]
        for run in runs
    ]
    head = ["Long video, the whole process", "Peak memory", "To the first", "Time", "Per frame"]
    return table(head, rows)
