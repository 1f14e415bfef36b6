"""What a kind of device has of PyTorch's operations; the one place that is asked."""

from __future__ import annotations

import torch

COMPLETE = frozenset({"cpu", "cuda", "meta"})
"""Kinds of device that have them all. The others may lack some: Apple's MPS knows no float64, nor
says which attention kernel it would take; of Intel's cards only some have float64."""


def is_complete(device: torch.device) -> bool:
    """Whether ``device`` has float64, and tells its attention kernel beforehand."""
    return device.type in COMPLETE


def widest_float(device: torch.device) -> torch.dtype:
    """The type to gather sums in: float64, or fp32 where a device may lack it."""
    return torch.float64 if is_complete(device) else torch.float32
