"""How GPUs, and all devices but CPUs, compute: few kernels that read and write little memory.

Channels stay last from end to end. Layers run whole as long as they fit into the free memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import attention, memory, norms, stripes
from .layers import Lending
from .layout import added
from .memory import Sparing
from .way import Way

WHOLE_UP_TO = 512 * 2**20
"""Bytes of a tensor, in fp32, up to which it is never cut: many small calls take more time."""
SPARED_UP_TO = 32 * 2**20
"""Bytes of a tensor, in fp32, up to which it is not cut even after memory ran out."""
UNDIVIDED_UP_TO = 32 * 2**20
"""Bytes of tokens, in fp32, up to which they are not halved. Halving larger ones costs little."""
MOST_NUMBERS = 2**31 - 1
"""Numbers in a tensor up to which the kernels of PyTorch and cuDNN are right in every release."""
GATED = 8 + 4 + 1
"""Size of the feed-forward layer's widest tensors together, in multiples of its input."""


class GPUWay(Way):
    """How GPUs and other devices compute; see the module."""

    def runs_clips_apart(self, clips: Tensor) -> bool:
        """Only after memory ran out, because one clip does not fill a card."""
        return not torch.compiler.is_compiling() and memory.spares(Sparing.HALVES)

    def halves_tokens(self, tokens: Tensor) -> bool:
        """Only where the whole layer would not fit."""
        return (
            4 * tokens.numel() > UNDIVIDED_UP_TO
            and not torch.compiler.is_compiling()
            and memory.must_spare(
                Sparing.HALVES, tokens.device, GATED * tokens.numel() * tokens.element_size()
            )
        )

    def cuts(self, x: Tensor, out_channels: int, enlarged: int = 1) -> bool:
        """Only where the whole layer, its normalised input and its result, would not fit."""
        if not stripes.are_possible(x):  # first, as a compiler cannot follow the rest
            return False
        whole = SPARED_UP_TO if memory.spares(Sparing.STRIPES) else WHOLE_UP_TO
        if enlarged * 4 * x.numel() <= whole:
            return False
        positions = enlarged * x.numel() // x.shape[1]
        if positions * max(x.shape[1], out_channels) > MOST_NUMBERS:
            return True
        held = positions * (x.shape[1] + 2 * out_channels) * x.element_size()
        return memory.must_spare(Sparing.STRIPES, x.device, held)

    def multiplies_scores(self, q: Tensor) -> bool:
        """PyTorch's kernel for heads that flash attention does not take is slow."""
        return attention.serves(q)

    def unbiased(
        self, conv: nn.Module, x: Tensor, rest: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """PyTorch would add the bias in a pass of its own; here it is added on the way."""
        if (
            norms.may_fuse(x)
            and isinstance(conv, Lending)
            and conv.lends
            # Asked last, as a compiler would follow the kernels' first test.
            and (rest is not None or norms.has_kernels(x.device))
        ):
            out, bias = conv.without_bias(x)
            return out, bias if rest is None else rest + bias
        return super().unbiased(conv, x, rest)

    def summed(
        self, conv: nn.Module, h: Tensor, x: Tensor, shortcut: nn.Module | None = None
    ) -> Tensor:
        """In as few passes over memory as there are ways to add on the way."""
        if (
            isinstance(conv, Lending)
            and isinstance(shortcut, Lending)
            and conv.lends
            and shortcut.lends
            and norms.may_fuse(x)
            # In fp32 convolutions may be faster than products, as they may use TF32.
            and x.dtype != torch.float32
            and x.shape[1] % 8 == 0  # fast products need rows of a multiple of 16 bytes
            and not norms.has_kernels(x.device)
        ):
            return conv.plus(h, x, shortcut)
        h, rest = self.unbiased(conv, h)
        if shortcut is not None:
            x, rest = self.unbiased(shortcut, x, rest)
        return added(h, x) if rest is None else norms.joined(h, x, rest)

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """``x`` normalised in one pass that keeps the layout."""
        return norms.normed(norm, x) if norms.serves(norm, x) else super().normed(norm, x)

    def activated(self, norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Norm and SiLU in one pass that keeps the layout."""
        if norms.serves(norm, x):
            return norms.normed(norm, x, shift, activate=True)
        return super().activated(norm, x, shift)


GPU = GPUWay()
