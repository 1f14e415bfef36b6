"""The choices that a kind of device may make for itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layout import added, by_channel, per_frame


class Way(ABC):
    """How one kind of device computes. All kinds give the same numbers to rounding."""

    @abstractmethod
    def runs_clips_apart(self, clips: Tensor) -> bool:
        """Whether the clips of a batch (b c t h w) go through the U-Net one after the other."""

    @abstractmethod
    def halves_tokens(self, tokens: Tensor) -> bool:
        """Whether the feed-forward layer takes ``tokens`` (b t n c) in two halves of the frames."""

    @abstractmethod
    def cuts(self, x: Tensor, out_channels: int, enlarged: int = 1) -> bool:
        """Whether a layer on ``x`` (b c t h w) with ``enlarged`` times its positions is cut."""

    def convolve(self, conv: nn.Module, x: Tensor) -> Tensor:
        """``conv`` of ``x`` (b c t h w); a 2-D convolution is applied frame by frame."""
        if not isinstance(conv, nn.Conv2d):
            return conv(x)
        return per_frame(
            conv if conv.kernel_size == (1, 1) else partial(self.convolve_frames, conv), x
        )

    def convolve_frames(self, conv: nn.Module, frames: Tensor) -> Tensor:
        """A 3x3 convolution of frames (n c h w), channels last."""
        return conv(frames)

    def unbiased(
        self, conv: nn.Module, x: Tensor, rest: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``conv`` of ``x``, and what is still to be added to it, (c) or (b, c).

        That is ``rest``, and the bias where it is better added later.
        """
        return self.convolve(conv, x), rest

    def summed(
        self, conv: nn.Module, h: Tensor, x: Tensor, shortcut: nn.Module | None = None
    ) -> Tensor:
        """``conv`` of ``h`` plus ``x``, or plus the 1x1 convolution ``shortcut`` of ``x``."""
        h = self.convolve(conv, h)
        return added(h, x if shortcut is None else self.convolve(shortcut, x))

    @abstractmethod
    def multiplies_scores(self, q: Tensor) -> bool:
        """Whether attention of ``q`` (b h n d) is faster as plain matrix products."""

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        """``x`` (b c ...) normalised in groups of channels."""
        return norm(x)

    def activated(self, norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """SiLU of the normalised x + ``shift``, (c) or (b, c).

        With a ``shift``, ``x`` may be overwritten.
        """
        if shift is not None:
            shift = by_channel(shift, x)
            x = x + shift if torch.is_grad_enabled() else x.add_(shift)
        return F.silu(norm(x), inplace=not torch.is_grad_enabled())
