"""The ways in which the networks are computed, by kind of device.

The networks say what is computed; whatever may be computed otherwise on another device they ask
``of(device)`` for.
"""

from __future__ import annotations

import torch

from .cpu import CPU
from .gpu import GPU
from .way import Way

_other: dict[str, Way] = {}


def of(device: torch.device) -> Way:
    """The way of ``device``."""
    return _other.get(device.type) or (CPU if device.type == "cpu" else GPU)


def use(way: Way, kind: str) -> None:
    """Let all devices of a kind work in ``way``, in this process: for training."""
    _other[kind] = way
