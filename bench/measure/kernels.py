"""Kernels launched and bytes moved by a call, counted on any machine.

Every PyTorch operation that is not a view counts as one kernel, which reads its inputs and writes
its results once. A GPU launches a few more, and reads less where its cache helps. So the counts are
only for comparison. The passes in which a GPU adds the biases of convolutions are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .meta import WHOLE, as_on_a_card

FREE = ("aten.empty", "aten.new_empty", "aten._unsafe_view", "aten._fused_sdp_choice")


@dataclass(frozen=True)
class Moved:
    """Kernels and bytes of a call."""

    kernels: int
    bytes: int
    biases: tuple[int, int]
    """Kernels and bytes of adding the biases of convolutions to their results."""
    by_operation: dict[str, tuple[int, int]]
    """Kernels and bytes of every operation."""


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[int]] = {}
        self.biases = [0, 0]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, str(func)
        if not name.startswith(WHOLE):
            # In inference mode composite operations arrive whole: count their parts.
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = as_on_a_card(func, args, func(*args, **kwargs))
        if not func.is_view and not name.startswith(FREE):
            read = (args, {key: x for key, x in kwargs.items() if key != "out"})
            given = [x for x in tree_leaves(read) if isinstance(x, Tensor)]
            made = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
            found = self.found.setdefault(name, [0, 0])
            found[0] += 1
            found[1] += sum(_touched(x) for x in (*given, *made))
            if name.startswith("aten.convolution") and args[2] is not None:
                self.biases[0] += 1
                self.biases[1] += 2 * _touched(out)
        return out


def _touched(x: Tensor) -> int:
    """Bytes of memory of ``x``, without axes that only repeat it."""
    count = x.element_size()
    for size, stride in zip(x.shape, x.stride(), strict=True):
        count *= size if stride else 1
    return count


@torch.inference_mode()
def count_moved(call: Callable[[], Any]) -> Moved:
    """Count ``call``, which works on PyTorch's meta device."""
    with _Counting() as counting:
        call()
    by_operation = {name: (k, b) for name, (k, b) in counting.found.items()}
    kernels, moved = (sum(counts) for counts in zip(*by_operation.values(), strict=True))
    return Moved(kernels, moved, (counting.biases[0], counting.biases[1]), by_operation)
