"""Memory: how much is free on a device, and how much to save whatever is free."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SPARE = 512 * 2**20
"""Bytes kept free for the scratch space of kernels and the waste of allocators."""


class Sparing(IntEnum):
    """How much speed to give up for memory. Each level includes those before it."""

    NONE = 0
    HALVES = 1
    """Guidance and a layer's tokens run in two halves, pairs of frames for the flow one by one."""
    STRIPES = 2
    """Large layers run in stripes of rows."""


_level: ContextVar[int] = ContextVar("sparing", default=Sparing.NONE)
taken: set[Sparing] = set()
"""Levels used since a caller last emptied this set, to be reported."""


@contextmanager
def sparing(level: int | None) -> Iterator[None]:
    """Save memory at ``level`` or above inside the block, on this thread."""
    token = _level.set(max(_level.get(), level or 0))
    try:
        yield
    finally:
        _level.reset(token)


def spares(level: Sparing) -> bool:
    """Whether the present level is ``level`` or above."""
    return _level.get() >= level


def free_on_cuda(device: torch.device) -> int | None:
    """Free bytes, with those that PyTorch has reserved but does not use; None where unknown."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


free: Callable[[torch.device], int | None] = free_on_cuda
"""Free bytes of a device. The nodes set ComfyUI's function, as other models share the device."""


def must_spare(level: Sparing, device: torch.device, needed: int) -> bool:
    """Whether to save memory at ``level``: asked for, or ``needed`` bytes may not be free."""
    known = None if spares(level) else free(device)
    if known is not None and needed + SPARE <= known:
        return False
    taken.add(level)
    return True


def to_host(x: Tensor, page_locked: bool) -> Callable[[], Tensor]:
    """Start to copy ``x`` to the computer's memory; the returned function waits for the copy.

    With ``page_locked`` it goes from CUDA through page-locked memory, so that nothing waits before
    that call. Where that is refused, and from other devices, it is copied at once.
    """
    # The same strides, as otherwise the device would first make a contiguous copy.
    held = _page_locked(x) if page_locked and x.device.type == "cuda" else None
    if held is None:
        here = x.cpu()
        return lambda: here
    held.copy_(x, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(x.device))

    def arrived() -> Tensor:
        copied.synchronize()
        # Page-locked memory is scarce and PyTorch keeps it: the next copy takes the same.
        return held.clone()

    return arrived


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """``x`` on ``device``. For CUDA the caller need not wait until earlier work there is done."""
    held = _page_locked(x) if device.type == "cuda" and x.device.type == "cpu" else None
    return x.to(device) if held is None else held.copy_(x).to(device, non_blocking=True)


_refused = False
"""Whether the system has refused page-locked memory to this process."""


def _page_locked(like: Tensor) -> Tensor | None:
    """Page-locked memory of the computer for a tensor such as ``like``; None if it is refused.

    It is refused for good then: each try may take long, and lets other programs fail as well.
    """
    global _refused
    if _refused:
        return None
    try:
        return torch.empty_like(like, device="cpu", pin_memory=True)
    except RuntimeError as error:
        _refused = True
        log.info("No page-locked memory: copies to and from the GPU take longer (%s).", error)
        return None


def free_page_locked() -> None:
    """Give back page-locked memory that PyTorch (2.13 or newer) keeps for the next copy."""
    empty = getattr(getattr(torch, "accelerator", None), "empty_host_cache", None)
    if empty is not None and torch.cuda.is_available():
        empty()


def peak_ram() -> int | None:
    """The most RAM this process has held so far, in bytes; None where the system does not say.

    On Linux from ``VmHWM``: ``ru_maxrss`` also counts the process that started this one.
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
