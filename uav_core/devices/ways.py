"""How the networks are computed, by kind of device.

The networks define what is computed. Where devices may differ, they ask ``of(device)`` how.
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
    """Make all devices of ``kind`` compute in ``way`` in this process, for training."""
    _other[kind] = way
