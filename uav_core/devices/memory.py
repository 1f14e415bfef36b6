"""What is free on a device, asked before a layer is run whole, and how sparing to be anyway."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from pathlib import Path

import torch

SPARE = 512 * 2**20
"""Bytes that are left for the scratch space of kernels, and for what an allocator wastes."""


class Sparing(IntEnum):
    """How much is given up for memory whatever is free; each with what comes before it."""

    NONE = 0
    HALVES = 1
    """Halves of guidance, of a layer's tokens, and pairs of frames one by one."""
    STRIPES = 2
    """Large layers in stripes of rows."""


_level: ContextVar[int] = ContextVar("sparing", default=Sparing.NONE)
taken: set[Sparing] = set()
"""What was done for want of memory since somebody emptied this, to be reported."""


@contextmanager
def sparing(level: int | None) -> Iterator[None]:
    """At least so sparing inside the block, on this thread."""
    token = _level.set(max(_level.get(), level or 0))
    try:
        yield
    finally:
        _level.reset(token)


def spares(level: Sparing) -> bool:
    """Whether to be so sparing now."""
    return _level.get() >= level


def free_on_cuda(device: torch.device) -> int | None:
    """Bytes that are free, those that PyTorch holds unused among them; None where unknown."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


free: Callable[[torch.device], int | None] = free_on_cuda
"""Asked for what is free. ComfyUI, which keeps other models on the device, sets its own."""


def must_spare(level: Sparing, device: torch.device, needed: int) -> bool:
    """Whether to be so sparing: it is asked for, or so many bytes are not surely free."""
    known = None if spares(level) else free(device)
    if known is not None and needed + SPARE <= known:
        return False
    taken.add(level)
    return True


def peak_ram() -> int | None:
    """The most RAM this process has held so far, in bytes; None where the system does not say.

    On Linux of its own program alone: ``ru_maxrss`` counts the process that started it as well.
    """
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
