"""The way of a GPU, and of all devices but CPUs: few kernels, each over as little as can be.

Channels stay last from end to end. Whole layers run as long as they fit into what is free.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import attention, memory, norms, stripes
from .layers import Lending
from .layout import per_frame
from .memory import Sparing
from .way import Way

WHOLE_UP_TO = 512 * 2**20
"""Bytes, in fp32, of a tensor that runs whole whatever is free: many small calls cost more."""
SPARED_UP_TO = 32 * 2**20
"""The same once memory ran out."""
UNDIVIDED_UP_TO = 32 * 2**20
"""The same of tokens, whose two halves cost little."""
GATED = 8 + 4 + 1
"""The widest tensors of the feed-forward layer, in multiples of its input."""


class GPUWay(Way):
    """See the module."""

    def runs_clips_apart(self, clips: Tensor) -> bool:
        """One clip does not fill a card: only once memory ran out."""
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
        whole = SPARED_UP_TO if memory.spares(Sparing.STRIPES) else WHOLE_UP_TO
        if not stripes.are_possible(x) or enlarged * 4 * x.numel() <= whole:
            return False
        channels = x.shape[1] + 2 * out_channels
        held = enlarged * x.numel() // x.shape[1] * channels * x.element_size()
        return memory.must_spare(Sparing.STRIPES, x.device, held)

    def multiplies_scores(self, q: Tensor) -> bool:
        """PyTorch's kernel for heads that flash attention does not take is slow."""
        return attention.serves(q)

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """In one pass that keeps the layout."""
        return norms.normed(norm, x) if norms.serves(norm, x) else super().normed(norm, x)

    def activated(self, norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """In one pass that keeps the layout."""
        if norms.serves(norm, x):
            return norms.normed(norm, x, shift, activate=True)
        return super().activated(norm, x, shift)

    def convolved_and_activated(
        self, conv: nn.Module, norm: nn.Module, x: Tensor, shift: Tensor | None
    ) -> Tensor:
        """The bias of the convolution goes with the shift: on its own it takes another pass."""
        if not (
            norms.serves(norm, x) and norms.has_kernels(x.device) and isinstance(conv, Lending)
        ):
            return super().convolved_and_activated(conv, norm, x, shift)

        def work(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
            def bare(x: Tensor) -> Tensor:
                return conv.computed(x, weight, None)

            out = per_frame(bare, x) if isinstance(conv, nn.Conv2d) else bare(x)
            if bias is None:
                return out, shift
            return out, bias.repeat(len(x), 1) if shift is None else bias + shift

        out, shift = conv.lend(work, x)
        return norms.normed(norm, out, shift, activate=True)


GPU = GPUWay()
