"""Plain values, which JSON stores and returns unchanged, and records made of them.

The types of a record's fields say what its text may hold. Reading is strict: True is not an int,
unknown or missing keys are errors, and nothing in the text is ever run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from ..errors import InputError
from ..paths import plain_name
from .names import is_state

DIGEST_BYTES = 32
MOST_NAME = 255
MOST_DEPTH = 16
MOST_INT = 2**64


def canonical(value: Any, where: str = "value") -> bytes:
    """The unique JSON text of a plain value: sorted keys, no spaces, ASCII. Raises InputError."""
    check_plain(value, where)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
    return text.encode("ascii")


def check_plain(value: object, where: str, depth: int = 0) -> None:
    """Raise InputError, naming the place, unless ``value`` is plain.

    Plain are None, bool, str, integers below 2**64, finite floats, and lists, tuples and dicts
    (with str keys) of plain values, at most 16 deep.
    """
    if depth > MOST_DEPTH:
        raise InputError(f"{where} is more than {MOST_DEPTH} levels deep.")
    inner: Iterable[tuple[str, object]]
    if value is None or isinstance(value, str):
        return
    if isinstance(value, int) and abs(value) < MOST_INT:
        return
    if isinstance(value, float) and math.isfinite(value):
        return
    if isinstance(value, (list, tuple)):
        inner = ((f"{where}[{i}]", item) for i, item in enumerate(value))
    elif isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        inner = ((f"{where}.{key:.60}", item) for key, item in value.items())
    else:
        raise InputError(
            f"{where} is {value!r:.60}: expected None, a bool, a str, an integer below 2**64, a "
            "finite float, or a list or a dict with str keys of these."
        )
    for place, item in inner:
        check_plain(item, place, depth + 1)


# --- records --------------------------------------------------------------------------------

# What a field must hold, in words for errors, and a test of its value.
Rule = tuple[str, Callable[[Any], bool]]


def _string(what: str, holds: Callable[[str], object]) -> Rule:
    return what, lambda value: type(value) is str and bool(holds(value))


def _is_shown(value: str) -> bool:
    return len(value) <= MOST_NAME and value.isprintable()


def _is_folder(value: str) -> bool:
    return value == "" or all(map(plain_name, value.split("/")))


Count = Annotated[
    int, ("an integer from 0 to 2**62", lambda value: type(value) is int and 0 <= value <= 2**62)
]
Digest = Annotated[
    str, _string("a checksum in hex", re.compile(f"[0-9a-f]{{{2 * DIGEST_BYTES}}}").fullmatch)
]
StateName = Annotated[str, _string("such as state_000001.bin", is_state)]
FileName = Annotated[str, _string("the name of a file", plain_name)]
Folder = Annotated[str, _string("the names of folders", _is_folder)]
Shown = Annotated[str, _string(f"at most {MOST_NAME} printable characters", _is_shown)]
Plain = Annotated[Mapping[str, Any], ("a dict", lambda value: type(value) is dict)]


@cache
def _fields(record: type) -> dict[str, tuple[Any, bool]]:
    """The type of every field, and whether the text leaves it out if it is None."""
    hints = get_type_hints(record, include_extras=True)
    return {field.name: (hints[field.name], field.default is None) for field in fields(record)}


def to_plain(value: Any) -> Any:
    """A record (a dataclass) as plain values."""
    if isinstance(value, tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, range):
        return [value.start, value.stop]
    if not is_dataclass(value):
        return value
    found = {name: getattr(value, name) for name in _fields(type(value))}
    return {
        name: to_plain(item)
        for name, item in found.items()
        if item is not None or not _fields(type(value))[name][1]
    }


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """The reverse of ``to_plain``: a ``kind`` from ``value``; ValueError, naming a bad place."""
    inner = get_args(kind)
    if is_dataclass(kind):
        known = _fields(kind)  # pyright: ignore[reportArgumentType]
        least = {name for name, (_, left_out) in known.items() if not left_out}
        if type(value) is not dict or not least <= value.keys() <= known.keys():
            keys = sorted(value) if type(value) is dict else value
            raise ValueError(f"{where} has {keys!r:.200}, expected {', '.join(known)}")
        found: dict[str, Any] = {}
        for name, item in value.items():
            inner, left_out = known[name]
            # An optional field is left out, and never written as None.
            inner = get_args(inner)[0] if left_out else inner
            found[name] = from_plain(inner, item, f"{where}.{name}")
        return kind(**found)  # pyright: ignore[reportCallIssue]
    if get_origin(kind) is tuple:
        if type(value) is not list:
            raise ValueError(f"{where} is {value!r:.60}, expected a list")
        return tuple(from_plain(inner[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if kind is range:
        ends = from_plain(tuple[Count, ...], value, where)
        if len(ends) != 2:
            raise ValueError(f"{where} has {len(ends)} numbers, expected 2")
        return range(*ends)
    if type(None) in inner:
        return None if value is None else from_plain(inner[0], value, where)
    what, holds = kind.__metadata__[0]
    if not holds(value):
        raise ValueError(f"{where} is {value!r:.60}, expected {what}")
    return value
