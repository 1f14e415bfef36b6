"""What long work tells its caller, and how a caller stops it.

``progress(done, total)`` counts units of work; ``check_cancelled()`` is called often and may raise.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]


def ignore(*_: object) -> None:
    """The callback of a caller who wants none."""
