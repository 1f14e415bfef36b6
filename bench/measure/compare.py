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
"""A timed run repeats a shorter call until it lasts this long, or scheduling would be measured."""
clock = time.perf_counter
"""Seconds, of the wall or of the process."""
log = logging.getLogger("bench")


@dataclass
class Side:
    """What one of the two implementations took."""

    seconds: list[float] = field(default_factory=list)
    peak: Peak | None = None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass
class Result:
    """A measured case."""

    title: str
    pack: Side
    plain: Side
    difference: float
    """Largest difference of the two results, relative to the largest value (at least 1)."""
    flops: int
    """Of one call as the mathematics is written: products, convolutions and attention.

    Counted in the baseline: the pack may do with fewer, and PyTorch does not count all of its own.
    """
    calibration: list[dict[str, Any]] = field(default_factory=list)

    @property
    def speed(self) -> float:
        """Floating-point operations per second of the pack's fastest run.

        The fastest, because the machine's limits are the fastest of several tries as well.
        """
        return self.flops / min(self.pack.seconds)

    @property
    def time_ratio(self) -> float:
        """Pack over baseline; below 1 the pack is faster."""
        return self.pack.median / self.plain.median

    @property
    def fastest_ratio(self) -> float:
        """The same of the fastest runs, which other load on the machine disturbed least."""
        return min(self.pack.seconds) / min(self.plain.seconds)

    @property
    def memory_ratio(self) -> float | None:
        """Pack over baseline, live tensors; None where memory was not measured."""
        if self.pack.peak is None or self.plain.peak is None:
            return None
        return self.pack.peak.live / self.plain.peak.live


class DifferentResultError(Exception):
    """Pack and baseline do not agree, so comparing their times would mean nothing."""


@torch.inference_mode()
def run_case(case: Case, repeat: int, device: torch.device) -> Result:
    """Compare the results, count operations and memory, then time the two in turns.

    Taking turns exposes both to the same other load and to the same clock of the machine.

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
    """Time a long call once on each side, when ``part`` of it has been measured already.

    Its operations are counted from those of the part; memory is not measured again.

    Raises DifferentResultError as ``run_case``.
    """
    log.info("%s ...", case.title)
    results: list[Tensor] = []
    plain = seconds(lambda: results.append(case.plain()), device)
    pack = seconds(lambda: results.append(case.pack()), device)
    difference = agreement(case, *reversed(results))
    return Result(case.title, Side([pack]), Side([plain]), difference, part.flops * case.parts)


def agreement(case: Case, pack: Tensor, plain: Tensor) -> float:
    """The relative difference of the two results; DifferentResultError if it is no float noise."""
    difference = relative_difference(pack, plain)
    if not difference < case.tolerance:
        raise DifferentResultError(f"{case.title}: results differ by {difference:.1e}.")
    return difference


def relative_difference(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference over the largest value, which counts as 1 if it is smaller."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1)).item()


def seconds(call: Callable[[], object], device: torch.device, calls: int = 1) -> float:
    """Time of one call by ``clock``, the mean of ``calls``, until the device is done."""
    synchronize(device)
    start = clock()
    for _ in range(calls):
        call()
    synchronize(device)
    return (clock() - start) / calls


def count_processor_time() -> None:
    """From now on measure the process's own time, which other load hardly changes.

    With one thread that is what the wall would show on an idle machine.
    """
    global clock
    clock = time.process_time


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of a call, a multiplication and an addition being two."""

    def attention(q: Any, k: Any, v: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
        return sdpa_flop_count(q, k, v)

    # PyTorch's counter does not know the CPU's fused attention.
    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={cpu_attention: attention})
    with counter:
        call()
    return counter.get_total_flops()
