"""What is free on a device, asked before a layer is run whole."""

from __future__ import annotations

from collections.abc import Callable

import torch

SPARE = 512 * 2**20
"""Bytes that are left for the scratch space of kernels, and for what an allocator wastes."""


def free_on_cuda(device: torch.device) -> int | None:
    """Bytes that are free, those that PyTorch holds unused among them; None where unknown."""
    if device.type != "cuda":
        return None
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


free: Callable[[torch.device], int | None] = free_on_cuda
"""Asked for what is free. ComfyUI, which keeps other models on the device, sets its own."""


def has_room(device: torch.device, needed: int) -> bool:
    """Whether so many bytes are surely free on ``device``."""
    known = free(device)
    return known is not None and needed + SPARE <= known
