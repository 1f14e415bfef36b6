"""Bytes that a pass and a decode take on a GPU, from the sizes of the networks.

What tensors hold at the peak, followed through the layers, and a quarter more for what kernels and
allocators need. ``tests/bench/test_bench_real_sizes.py`` holds it to what is counted.
"""

from __future__ import annotations

from ..devices import attention
from .unet import UNetParams
from .vae import UPSCALE, VAEParams

MARGIN = 1.25
FEED_FORWARD = 15
"""Tensors of a level's width that a transformer holds in its feed-forward layer: itself, its
residuals, eight of the first product, four of the gate."""
HALVED = 10
"""The same with its frames in two halves."""
MIDDLE = 6
"""Tensors that the attention over a frame holds: itself, its input, query, key, value, result."""
SCORES = 2.5
"""Blocks of its scores: computed, as weights, and those in half precision."""
REFINED = 4
"""Tensors of a level's width that a resnet with a 3x3x3 convolution holds."""
STRIPED = 1.08
"""In stripes: what is read and what is written, and the rows between them."""


def pass_bytes(
    params: UNetParams, clips: int, frames: int, h: int, w: int, each: int, spared: bool = False
) -> int:
    """Of one pass over ``clips`` of frames (h, w), numbers of ``each`` bytes.

    ``spared``: of the least that it can be done with, large layers in parts.
    """
    held, peak = 0.0, 0.0
    for level, width in enumerate(params.channels):
        before = params.channels[max(level - 1, 0)]
        below = params.channels[min(level + 1, len(params.channels) - 1)]
        # On the way up, with all skips of the levels above and all of its own but one.
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
    """Of decoding ``frames`` low-resolution frames (h, w) together, numbers of ``each`` bytes.

    ``spared`` as for a pass.
    """
    widths = params.decoder_widths
    pixels = frames * h * w * UPSCALE**2
    scores = min(attention.BLOCK // (4 if spared else 1), 4 * frames * (h * w) ** 2)
    peak = MIDDLE * widths[0] * pixels / 4 ** (len(widths) - 1) * each + SCORES * scores
    for level, width in enumerate(widths):
        before = widths[max(level - 1, 0)]
        share = pixels / 4 ** (len(widths) - 1 - level) * each
        whole = max(REFINED * width, 2 * before + width)
        peak = max(peak, share * (STRIPED * (max(before, width) + width) if spared else whole))
        if level < len(widths) - 1:
            # Enlarged fourfold, before its convolution and after it.
            peak = max(peak, share * width * (1 + 4 * STRIPED if spared else 8))
    return round(MARGIN * peak)
