"""Callbacks by which long work reports its progress, and by which a caller stops it.

``progress(done, total)`` counts units of work; ``check_cancelled()`` is called often and may raise.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]


def ignore(*_: object) -> None:
    """A callback that does nothing, for callers that need none."""
