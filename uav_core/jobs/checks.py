"""Strict checks of values read from a file.

A check takes a value and the place where it was found, and returns the value or raises
RefusedError. The functions here make checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
Check = Callable[[Any, str], Any]


class RefusedError(Exception):
    """Why a value is not what it must be; callers turn it into an error of their own."""


def refuse(why: str) -> NoReturn:
    """Raise RefusedError."""
    raise RefusedError(why)


def exactly(kind: type) -> Check:
    """A value of this very type: True is no int."""

    def check(value: Any, where: str) -> Any:
        if type(value) is not kind:
            refuse(f"{where} is {value!r:.60}, expected {kind.__name__}")
        return value

    return check


def integer(most: int, least: int = 0) -> Check:
    """An int from ``least`` to ``most``."""

    def check(value: Any, where: str) -> int:
        if type(value) is not int or not least <= value <= most:
            refuse(f"{where} is {value!r:.60}, expected an integer from {least} to {most}")
        return value

    return check


def text(pattern: str, what: str) -> Check:
    """A str that ``pattern`` matches whole; ``what`` says what it is, for the error."""

    def check(value: Any, where: str) -> str:
        if type(value) is not str or not re.fullmatch(pattern, value):
            refuse(f"{where} is {value!r:.60}, expected {what}")
        return value

    return check


def fields(value: Any, where: str, **checks: Check) -> dict[str, Any]:
    """The checked values of a dict with exactly these keys."""
    if type(value) is not dict or value.keys() != checks.keys():
        keys = sorted(value) if type(value) is dict else value
        refuse(f"{where} has {keys!r:.200}, expected {', '.join(checks)}")
    return {name: check(value[name], f"{where}.{name}") for name, check in checks.items()}


def record(kind: Callable[..., T], **checks: Check) -> Callable[[Any, str], T]:
    """A ``kind`` made from a dict with exactly these keys."""
    return lambda value, where: kind(**fields(value, where, **checks))


def list_of(check: Callable[[Any, str], T], most: int) -> Callable[[Any, str], tuple[T, ...]]:
    """A list of at most ``most`` values, as a tuple."""

    def check_all(value: Any, where: str) -> tuple[T, ...]:
        if type(value) is not list or len(value) > most:
            refuse(f"{where} is {value!r:.60}, expected a list of at most {most}")
        return tuple(check(item, f"{where}[{i}]") for i, item in enumerate(value))

    return check_all
