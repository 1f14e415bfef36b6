"""Which kinds of device have every PyTorch operation that is used here."""

from __future__ import annotations

import torch

COMPLETE = frozenset({"cpu", "cuda", "meta"})
"""Kinds of device that have them all. Others may lack some: Apple's MPS has no float64 and does not
tell which attention kernel it would take; only some Intel cards have float64."""


def is_complete(device: torch.device) -> bool:
    """Whether ``device`` has float64 and can tell which attention kernel it would take."""
    return device.type in COMPLETE


def widest_float(device: torch.device) -> torch.dtype:
    """The dtype for sums: float64, or fp32 where the device may lack float64."""
    return torch.float64 if is_complete(device) else torch.float32
