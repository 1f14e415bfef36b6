"""Peak memory of a call, the same on every device: bytes of live tensors.

The operating system's numbers include scratch space of libraries and depend on the allocator, so
they differ between machines and runs. Counted here is only what the code itself keeps alive. On a
GPU the allocator's own peak, with scratch space, is reported too.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .meta import WHOLE, as_on_a_card


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations create inside the ``with`` block.

    Inputs, weights and views of them are not counted; in-place results and views of counted
    storages are counted once. Scratch space inside an operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.current = 0
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not str(func).startswith(WHOLE):
            # In inference mode composite operations arrive whole: count their parts.
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        given = {_identity(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = as_on_a_card(func, args, func(*args, **kwargs))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _identity(tensor) not in given:
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.live:
            return
        self.live[key] = storage.nbytes()
        self.current += self.live[key]
        self.peak = max(self.peak, self.current)
        weakref.finalize(storage, self._remove, key).atexit = False

    def _remove(self, key: int) -> None:
        self.current -= self.live.pop(key)


def _identity(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


@dataclass(frozen=True)
class Peak:
    """Peak bytes of one call with its result, without its inputs and weights."""

    live: int
    """Bytes of live tensors."""
    allocated: int | None
    """Bytes of CUDA's allocator; None on a CPU."""


def measure_peak(call: Callable[[], Tensor], device: torch.device) -> Peak:
    """Run ``call`` once for each kind of measurement; these runs are slower than usual."""
    with LiveBytes() as counted:
        out = call()
    del out
    allocated = None
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        out = call()
        torch.cuda.synchronize(device)
        allocated = torch.cuda.max_memory_allocated(device) - before
        del out
    return Peak(counted.peak, allocated)
