"""Plain values: what JSON can hold and give back unchanged."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import InputError

MOST_DEPTH = 16
MOST_INT = 2**64


def check_plain(value: object, where: str, depth: int = 0) -> None:
    """Raises InputError, naming the place, unless ``value`` is plain.

    Plain are None, bool, str, integers below 2**64, finite floats, and lists, tuples and dicts
    (with str keys) of plain values, at most 16 deep.
    """
    if depth > MOST_DEPTH:
        raise InputError(f"{where} is more than {MOST_DEPTH} levels deep.")
    if value is None or isinstance(value, (bool, str)):
        return
    if isinstance(value, int):
        if abs(value) >= MOST_INT:
            raise InputError(f"{where} is an integer beyond 2**64.")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where} is {value}: expected a finite number.")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            check_plain(item, f"{where}[{i}]", depth + 1)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where} has the key {key!r:.60}: expected only str keys.")
            check_plain(item, f"{where}.{key:.60}", depth + 1)
    else:
        raise InputError(
            f"{where} is a {type(value).__name__}: expected None, bool, int, float, str, list or "
            "dict."
        )


def canonical(value: Any, where: str = "value") -> bytes:
    """The one JSON text of a plain value: sorted keys, no spaces, ASCII. Raises InputError."""
    check_plain(value, where)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_as_dict
    )
    return text.encode("ascii")


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not plain")
