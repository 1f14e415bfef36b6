"""Summary of a finished step: frames, time and peak memory."""

from __future__ import annotations

import time

import comfy.model_management as mm
import torch

from ...uav_core.devices import memory
from ...uav_core.files import human_bytes
from ...uav_core.longvideo.estimate import duration
from ...uav_core.sampling.ladder import SPARING, StepDown


class RunSummary:
    """Measures time and peak memory from its creation on."""

    def __init__(self) -> None:
        self.device = mm.get_torch_device()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        memory.taken.clear()
        self.steps: list[StepDown] = []
        """Steps down where memory ran out; the work reports them to its ``append``."""
        self.started = time.perf_counter()

    def to_text(self, done: str, frames: int) -> str:
        """ "Sampled 25 frames in 12 s, 2.1 frames per second. Peak memory: ...".

        Where memory ran short, it also says how the step was made to fit.
        """
        seconds = time.perf_counter() - self.started
        peaks = []
        if self.device.type == "cuda":
            peaks.append(f"GPU {human_bytes(torch.cuda.max_memory_allocated(self.device))}")
        if (ram := memory.peak_ram()) is not None:
            peaks.append(f"RAM {human_bytes(ram)} since ComfyUI started")
        plural = "s" * (frames != 1)
        rate = f"{frames / max(seconds, 1e-6):.3g} frames per second"
        most = f" Peak memory: {', '.join(peaks)}." if peaks else ""
        lines = [f"{done} {frames} frame{plural} in {duration(seconds)}, {rate}.{most}"]
        if memory.taken:
            taken = ", ".join(SPARING[level] for level in sorted(memory.taken))
            lines.append(f"To fit into memory: {taken}.")
        return "\n".join([*lines, *map(str, self.steps)])
