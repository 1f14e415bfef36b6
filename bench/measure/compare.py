"""Time and memory of a case, pack and baseline side by side in one process."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..cases.case import Case
from .memory import Peak, measure_peak

MIN_SECONDS = 0.3
"""Least time of a timed run; shorter calls are repeated, to measure more than scheduling."""
clock = time.perf_counter
"""Clock in seconds: wall time or processor time."""
log = logging.getLogger("bench")


@dataclass
class Side:
    """Time and memory of one of the two implementations."""

    seconds: list[float] = field(default_factory=list)
    peak: Peak | None = None

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.seconds)


@dataclass
class Result:
    """The result of a measured case."""

    title: str
    pack: Side
    plain: Side
    difference: float
    """Largest difference of the two results, relative to the largest value (at least 1)."""
    flops: int
    """Floating-point operations of one call: products, convolutions and attention.

    Counted in the baseline, as the pack may need fewer, and PyTorch cannot count all of these.
    """
    calibration: list[dict[str, Any]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Floating-point operations per second of the pack's fastest run.

        The fastest, as the machine's limits are also the fastest of several tries.
        """
        return self.flops / min(self.pack.seconds)

    @property
    def time_ratio(self) -> float:
        """Median time of the pack over that of the baseline; below 1 the pack is faster."""
        return self.pack.median / self.plain.median

    @property
    def fastest_ratio(self) -> float:
        """Ratio of the fastest runs, which other load disturbs least."""
        return min(self.pack.seconds) / min(self.plain.seconds)

    @property
    def memory_ratio(self) -> float | None:
        """Peak of live tensors, pack over baseline; None if memory was not measured."""
        if self.pack.peak is None or self.plain.peak is None:
            return None
        return self.pack.peak.live / self.plain.peak.live


class DifferentResultError(Exception):
    """Pack and baseline disagree, so their times cannot be compared."""


@torch.inference_mode()
def run_case(case: Case, repeat: int, device: torch.device) -> Result:
    """Compare the results, count operations and memory, then time the two in turns.

    Taking turns gives both the same other load and the same clock rate.

    Raises DifferentResultError if the two results differ by more than float noise.
    """
    log.info("%s ...", case.title)
    difference = agreement(case, case.pack(), case.plain())
    result = Result(case.title, Side(), Side(), difference, count_flops(case.plain))
    sides = ((result.plain, case.plain), (result.pack, case.pack))
    for side, call in sides:
        side.peak = measure_peak(call, device)
    once = min(seconds(call, device) for _, call in sides)
    calls = max(1, round(MIN_SECONDS / once))
    for _ in range(min(repeat, case.most_runs)):
        for side, call in sides:
            side.seconds.append(seconds(call, device, calls))
    return result


@torch.inference_mode()
def run_whole(case: Case, part: Result, device: torch.device) -> Result:
    """Time a long call once on each side, after its ``part`` was measured.

    Its operations are those of the part, multiplied; memory is not measured again.

    Raises DifferentResultError as ``run_case``.
    """
    log.info("%s ...", case.title)
    results: list[Tensor] = []
    plain = seconds(lambda: results.append(case.plain()), device)
    pack = seconds(lambda: results.append(case.pack()), device)
    difference = agreement(case, *reversed(results))
    return Result(case.title, Side([pack]), Side([plain]), difference, part.flops * case.parts)


def agreement(case: Case, pack: Tensor, plain: Tensor) -> float:
    """The relative difference of the two results; DifferentResultError above the tolerance."""
    difference = relative_difference(pack, plain)
    if not difference < case.tolerance:
        raise DifferentResultError(f"{case.title}: results differ by {difference:.1e}.")
    return difference


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference, divided by the largest value or 1 if that is larger."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


def seconds(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Mean time of ``calls`` calls by ``clock``, until the device is done."""
    synchronize(device)
    start = clock()
    for _ in range(calls):
        call()
    synchronize(device)
    return (clock() - start) / calls


def count_processor_time() -> None:
    """Use processor time from now on, which other load hardly changes.

    With one thread it equals wall time on an idle machine.
    """
    global clock
    clock = time.process_time


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of a call; a multiplication and an addition count as two."""

    def attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    # PyTorch's counter does not know the CPU's fused attention.
    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={cpu_attention: attention})
    with counter:
        call()
    return counter.get_total_flops()
