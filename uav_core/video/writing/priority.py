"""Encoders that take real-time priority are given back the usual one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_TASKS = "/proc/self/task"


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """Around the opening of an encoder: nothing in this process has a higher priority afterwards.

    SVT-AV1, run by root, as in most containers, puts the thread that opens it and its own ones
    above all others of the machine (SCHED_FIFO, 99), and whatever that thread starts later inherits
    it. Threads that wait for each other by spinning, as PyTorch's do, then wait for ever.
    """
    if not hasattr(os, "sched_getscheduler") or not os.path.isdir(_TASKS):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    there = set(os.listdir(_TASKS))
    try:
        yield
    finally:
        changed = {"0", *os.listdir(_TASKS)} - there
        for task in map(int, changed):
            # Threads may have ended.
            with contextlib.suppress(OSError):
                if os.sched_getscheduler(task) != policy:
                    os.sched_setscheduler(task, policy, parameters)
