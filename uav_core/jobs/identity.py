"""What makes two runs the same job."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from ..errors import InputError
from .plain import Plain, Shown, canonical

FORMAT_VERSION = 2
"""Of the manifest and of all that a job folder holds."""

_ID_BYTES = 16


@dataclass(frozen=True)
class JobInputs:
    """All that decides a job's result, as plain values.

    ``fingerprint`` of the input file; ``settings`` of the run; ``weights``: name -> hash in hex.
    ``name`` of the input is shown in lists and changes nothing: a renamed file is the same job.
    """

    fingerprint: Plain
    settings: Plain
    weights: Plain
    name: Shown = ""


def job_id(inputs: JobInputs) -> str:
    """32 hex digits: equal for equal inputs, another for any change.

    Raises InputError, naming the place, for values that are not plain.
    """
    for name, value in inputs.weights.items():
        if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{16,128}", value):
            raise InputError(f"The hash of weights {name!r:.80} is {value!r:.80}: expected hex.")
    body = {
        "fingerprint": inputs.fingerprint,
        "settings": inputs.settings,
        "weights": inputs.weights,
        "version": FORMAT_VERSION,
    }
    return hashlib.blake2b(canonical(body, "inputs"), digest_size=_ID_BYTES).hexdigest()


def is_job_id(name: str) -> bool:
    """Whether ``name`` has the form of a job's id, and so of its folder's name."""
    return re.fullmatch(f"[0-9a-f]{{{2 * _ID_BYTES}}}", name) is not None
