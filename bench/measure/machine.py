"""Description of the machine, and its best speed of arithmetic."""

from __future__ import annotations

import itertools
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from .compare import seconds

TRIES = 5


def describe(device: torch.device) -> dict[str, str | int | float | None]:
    """Facts about the machine that are needed to judge the results."""
    cuda = device.type == "cuda"
    return {
        "device": device.type,
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "cpu_instructions": torch.backends.cpu.get_cpu_capability(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(device) if cuda else None,
        "gpu_memory_gib": (
            round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1)
            if cuda
            else None
        ),
    }


def cpu_model() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Limits:
    """Best measured fp32 speed, in floating-point operations per second."""

    matmul: float
    convolution: float

    def best_of(self, other: Limits) -> Limits:
        """The faster of two measurements."""
        return Limits(max(self.matmul, other.matmul), max(self.convolution, other.convolution))


@torch.inference_mode()
def measure_limits(device: torch.device, quick: bool = False) -> Limits:
    """The best of several sizes, layouts and tries of a matrix product and a 3x3 convolution.

    The convolutions have widths of the U-Net and 16 frames, so that the network could reach the
    limit.
    """
    sides = (256,) if quick else (1024, 2048, 4096) if device.type == "cpu" else (4096, 8192)
    matmul = 0.0
    for side in sides:
        a, b = torch.randn(2, side, side, device=device)
        matmul = max(matmul, 2 * side**3 / best(lambda a=a, b=b: a @ b, device))

    shapes = ((32, 16),) if quick else ((256, 32), (512, 32), (512, 16), (1024, 16))
    convolution = 0.0
    layouts = (torch.contiguous_format, torch.channels_last)
    for (channels, side), layout in itertools.product(shapes, layouts):
        x = torch.randn(16, channels, side, side, device=device).to(memory_format=layout)
        w = torch.randn(channels, channels, 3, 3, device=device).to(memory_format=layout)
        work = 2 * 9 * channels * x.numel()
        took = best(lambda x=x, w=w: F.conv2d(x, w, padding=1), device)
        convolution = max(convolution, work / took)
    return Limits(matmul, convolution)


def best(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest try, after one for warm-up."""
    return min([seconds(call, device) for _ in range(TRIES + 1)][1:])
