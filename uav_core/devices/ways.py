"""The ways in which the networks are computed, by kind of device.

The networks say what is computed; whatever may be computed otherwise on another device they ask
``of(device)`` for.
"""

from __future__ import annotations

import torch

from .cpu import CPU
from .gpu import GPU
from .way import Way


def of(device: torch.device) -> Way:
    """The way of ``device``."""
    return CPU if device.type == "cpu" else GPU
