"""Bytes that a U-Net pass and a VAE decode take on a GPU, from the sizes of the networks.

The estimate follows the tensors through the layers to the peak, and adds a quarter for kernels and
allocators. ``tests/bench/test_bench_real_sizes.py`` compares it with counted bytes.
"""

from __future__ import annotations

from ..devices import attention
from .unet import UNetParams
from .vae import UPSCALE, VAEParams

MARGIN = 1.25
FEED_FORWARD = 15
"""Tensors of a level's width that a transformer holds in its feed-forward layer: its input, its
residuals, eight of the first product, four of the gate."""
HALVED = 10
"""FEED_FORWARD with the frames in two halves."""
MIDDLE = 6
"""Tensors that the attention over a frame holds: input, tokens, query, key, value, result."""
SCORES = 2.5
"""Blocks of scores that wide heads hold: scores, their softmax, and that in half precision."""
REFINED = 4
"""Tensors of a level's width that a resnet with a 3x3x3 convolution holds."""
STRIPED = 1.08
"""Factor for a layer in stripes, on its input and result: adds the rows in its buffer."""


def pass_bytes(
    params: UNetParams, clips: int, frames: int, h: int, w: int, each: int, spared: bool = False
) -> int:
    """Bytes of one U-Net pass over ``clips`` of ``frames`` frames (h, w), ``each`` bytes a number.

    ``spared``: the least bytes it can run with, large layers in parts.
    """
    held, peak = 0.0, 0.0
    for level, width in enumerate(params.channels):
        before = params.channels[max(level - 1, 0)]
        below = params.channels[min(level + 1, len(params.channels) - 1)]
        # The peak is on the way up, with all skips of the levels above and all but one of its own.
        joined = below + width
        if params.attention[level]:
            work = joined + width * (1 + (HALVED if spared else FEED_FORWARD))
        else:
            work = joined * (1 if spared else 2) + width * (2 if spared else 1)
        skips = before + params.resnets * width
        peak = max(peak, held + (skips - width + work) / 4**level)
        held += skips / 4**level
    return round(MARGIN * clips * frames * h * w * each * peak)


def decode_bytes(
    params: VAEParams, frames: int, h: int, w: int, each: int, spared: bool = False
) -> int:
    """Bytes to decode ``frames`` low-resolution frames (h, w) together, ``each`` bytes a number.

    ``spared`` as in ``pass_bytes``.
    """
    widths = params.decoder_widths
    pixels = frames * h * w * UPSCALE**2
    scores = 0
    if widths[0] > attention.WIDEST_FLASH:  # narrower heads have kernels that hold no scores
        scores = min(attention.BLOCK // (4 if spared else 1), 4 * frames * (h * w) ** 2)
    peak = MIDDLE * widths[0] * pixels / 4 ** (len(widths) - 1) * each + SCORES * scores
    for level, width in enumerate(widths):
        before = widths[max(level - 1, 0)]
        share = pixels / 4 ** (len(widths) - 1 - level) * each
        whole = max(REFINED * width, 2 * before + width)
        peak = max(peak, share * (STRIPED * (max(before, width) + width) if spared else whole))
        if level < len(widths) - 1:
            # The upsampler holds four times the positions, before and after its convolution.
            peak = max(peak, share * width * (1 + 4 * STRIPED if spared else 8))
    return round(MARGIN * peak)
