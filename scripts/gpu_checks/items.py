"""What a phase is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
"""What an item measured, by a name that tells the unit."""


class CheckFailedError(Exception):
    """What was checked is not as it has to be; the message says what was seen and expected."""


class NotPossibleError(Exception):
    """This machine or this ComfyUI cannot run the item; the message says why."""


@dataclass(frozen=True)
class Item:
    """One check, small enough that losing it loses little."""

    name: str
    run: Callable[[], Values]
    """Raises CheckFailedError, NotPossibleError, or what the checked code raises."""
    seconds: float = 3
    """About what it takes on a card of today. With less time left it is not begun."""


def check_at_most(what: str, value: float, bound: float) -> Values:
    """The value and its bound; CheckFailedError if it is above it, or no number."""
    if not value <= bound:
        raise CheckFailedError(f"{what} {value:.3g}, expected at most {bound:.3g}")
    return {what: value, "bound": bound}
