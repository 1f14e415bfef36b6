"""Produces items on one thread while another thread uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Full, Queue
from typing import Any, TypeVar

from ..errors import UpscaleAVideoError

T = TypeVar("T")
R = TypeVar("R")

# Seconds to wait for a full queue before checking again whether its user has ended.
LOOK_SECONDS = 0.1


class AbandonedError(UpscaleAVideoError):
    """Making the next item failed, so no more items come; raised in the thread that uses them."""


def used_behind(use: Callable[[Iterator[T]], R], items: Iterable[T], room: int) -> R:
    """The result of ``use(items)``, which runs on a thread of its own.

    The items are made on the calling thread, as models belong to it, at most ``room`` ahead. If
    making one fails, an AbandonedError ends ``use`` before the failure is raised; if ``use``
    fails, no more items are made and its failure is raised.
    """
    queue: Queue[Any] = Queue(room)
    end, abandoned = object(), object()

    def given() -> Iterator[T]:
        while (item := queue.get()) is not end:
            if item is abandoned:
                raise AbandonedError("Making the next item failed; see the error that follows.")
            yield item

    with ThreadPoolExecutor(1) as pool:
        used = pool.submit(use, given())

        def put(item: object) -> bool:
            while not used.done():
                try:
                    queue.put(item, timeout=LOOK_SECONDS)
                    return True
                except Full:
                    pass
            return False

        last = abandoned
        try:
            if all(map(put, items)):
                last = end
        finally:
            put(last)
        return used.result()
