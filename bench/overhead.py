"""Measure the processor time per frame that a long video needs in addition to its networks.

    python -m bench.overhead [--frames 200] [--size 320x180]

The command runs as usual, but the networks are replaced: they return tensors of the right size at
once. Measured are the time of the thread that calls the networks, and that of the other threads,
which encode meanwhile. PyTorch uses one thread, so that other programs have no influence.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from bench.hour import write_inputs
from bench.studies.long_video import moving
from bench.studies.report import table
from uav_core.cli.main import main as command
from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import UPSCALE, TemporalVAE
from uav_core.video import EncodeParams, encode_part

log = logging.getLogger("bench_overhead")

RUNS = {
    "reading, noise, latents, frames to the encoder": ("--color-fix", "none"),
    "and the colour fix, where the CPU does it": (),
    "and looking for cuts": ("--cut-detection", "auto"),
}


def _predict(_unet: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x[:, :4]


class _Decoder:
    """Replaces the decoder: gives pictures, and adds up the seconds that this takes."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, z: Tensor, *_: Any, **__: Any) -> Tensor:
        start = time.thread_time()
        n, h, w = z.shape[2:]
        row = torch.linspace(-1, 1, UPSCALE * w)
        pixels = row.expand(1, 3, n, UPSCALE * h, UPSCALE * w).contiguous()
        self.seconds += time.thread_time() - start
        return pixels


def run(words: list[str]) -> tuple[float, float]:
    """Processor seconds of a command: in the networks' thread, and in all others."""
    decoder = _Decoder()
    with (
        patch.object(TemporalUNet, "forward", _predict),
        patch.object(TemporalVAE, "decode", decoder),
    ):
        whole, own = time.process_time(), time.thread_time()
        code = command(words)
        own, whole = time.thread_time() - own, time.process_time() - whole
    if code:
        raise SystemExit(f"The command failed with exit code {code}.")
    return own - decoder.seconds, whole - own


def measure(folder: Path, frames: int, size: tuple[int, int]) -> dict[str, tuple[float, float]]:
    """Milliseconds per frame of the networks' thread and of all others, by name of the run.

    They are the difference between a clip and a quarter of it, so that the start does not count.
    """
    words = write_inputs(folder)
    params = EncodeParams("h264", ".mp4", rate=Fraction(25))
    lengths = (frames // 4, frames)
    for n in lengths:
        encode_part(folder / f"{n}.mp4", moving(0, n, n, *size), params, size)
    found = {}
    for i, (name, options) in enumerate(RUNS.items()):
        short, long = (
            run([str(folder / f"{n}.mp4"), str(folder / f"{n}_{i}.mp4"), *words, *options])
            for n in lengths
        )
        per_frame = [
            1000 * (b - a) / (frames - frames // 4) for a, b in zip(short, long, strict=True)
        ]
        found[name] = (per_frame[0], per_frame[1])
    return found


def main(words: list[str] | None = None) -> int:
    """Measure, and log the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--size", default="320x180")
    o = parser.parse_args(words)
    w, h = (int(side) for side in o.size.split("x"))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), o.frames, (w, h))
    rows = [[name, *(f"{ms:.1f} ms" for ms in both)] for name, both in found.items()]
    log.warning("\n%s", table(["A frame", "networks' thread", "the others"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
