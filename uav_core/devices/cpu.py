"""How CPUs compute: little memory, few multiplications, weights read as seldom as possible."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import stripes, winograd
from .layers import Lending
from .linear import linear
from .way import Way

ALONE_FROM = 8 * 32 * 32
"""Positions (t h w) from which a clip runs alone. For smaller clips, reading the weights again for
each clip would take longer than the arithmetic and save little memory."""
FEW_TOKENS = 512
"""Tokens of a clip up to which they are not split: they take little memory and little time."""
SMALL_FRAME = 64
"""Positions of a frame up to which convolutions are faster with the channels first, as the weights
are stored: there most of the time goes into the weights."""
TINY_FRAME = 16
"""Positions of a frame up to which one matrix product is fastest, as it reads every weight once."""
WHOLE_UP_TO = 16 * 2**20
"""Bytes of a tensor, in fp32, up to which it is not cut into stripes."""
WINOGRAD_WHOLE_UP_TO = 7 * 2**20
"""This limit for Winograd's convolution: lower, as it copies its input into a border anyway."""


class CPUWay(Way):
    """How CPUs compute; see the module."""

    def runs_clips_apart(self, clips: Tensor) -> bool:
        """Clips do not see each other: one after the other takes half the memory."""
        return clips[0, 0].numel() >= ALONE_FROM

    def halves_tokens(self, tokens: Tensor) -> bool:
        """True above FEW_TOKENS: the widest tensor would set the network's peak of memory."""
        return tokens[0, ..., 0].numel() > FEW_TOKENS

    def cuts(self, x: Tensor, out_channels: int, enlarged: int = 1) -> bool:
        """True for tensors that do not fit into the CPU's caches."""
        whole = WHOLE_UP_TO
        if winograd.serves(x, out_channels):
            whole = min(whole, WINOGRAD_WHOLE_UP_TO)
        return stripes.are_possible(x) and enlarged * 4 * x.numel() > whole

    def convolve_frames(self, conv: nn.Module, frames: Tensor) -> Tensor:
        """The convolution by the fastest of four methods for this size."""
        positions = frames.shape[-2] * frames.shape[-1]
        if isinstance(conv, Lending) and conv.lends:
            if winograd.serves(frames, conv.out_channels):
                return conv.lend(lambda *given: winograd.convolve_frames(frames, *given), frames)
            if positions <= TINY_FRAME:
                return conv.lend(lambda *given: multiply_out(frames, *given), frames)
        if positions > SMALL_FRAME:
            return conv(frames)
        return conv(frames.contiguous()).contiguous(memory_format=torch.channels_last)

    def multiplies_scores(self, q: Tensor) -> bool:
        """PyTorch has a fused kernel for every width."""
        return False


def multiply_out(frames: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution as the product of the weights with the 3x3 patch of every position."""
    around = F.unfold(frames, weight.shape[-2:], padding=1).transpose(1, 2)
    n, positions = around.shape[:2]
    # As one matrix: for a batch of matrices PyTorch would copy the weights for each.
    out = linear(around.reshape(n * positions, -1), weight.flatten(1), bias)
    return out.view(n, *frames.shape[-2:], -1).permute(0, 3, 1, 2)


CPU = CPUWay()
