"""Items: the single checks of a phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Values = Mapping[str, Any]
"""Measured values of an item; the names include the unit."""


class CheckFailedError(Exception):
    """A check failed; the message has the measured and the expected value."""


class NotPossibleError(Exception):
    """This machine or this ComfyUI cannot run the item; the message says why."""


@dataclass(frozen=True)
class Item:
    """One check, small so that little is lost if it cannot end."""

    name: str
    run: Callable[[], Values]
    """Raises CheckFailedError, NotPossibleError, or what the checked code raises."""
    seconds: float = 3
    """Estimated time on a current GPU. With less time left the item is not started."""


def check_at_most(what: str, value: float, bound: float) -> Values:
    """The value and its bound; CheckFailedError if the value is above the bound, or NaN."""
    if not value <= bound:
        raise CheckFailedError(f"{what} {value:.3g}, expected at most {bound:.3g}")
    return {what: value, "bound": bound}
