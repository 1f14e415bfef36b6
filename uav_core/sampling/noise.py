"""Noise that depends on the frame, not on the run.

Every frame draws from a generator of its own, seeded by (seed, stream, frame). A frame's noise is
then the same whether the clip is sampled whole or in chunks, and no global generator is touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

LATENT, LOW_RES = "latent", "low_res"


def frame_noise(
    seed: int, stream: str, frames: Iterable[int], channels: int, h: int, w: int
) -> Tensor:
    """(1, channels, t, h, w) standard normal fp32 on the CPU for the given absolute frames.

    ``stream`` keeps the noise of the latent apart from that of the low-resolution frames.
    """
    parts = []
    for frame in frames:
        digest = hashlib.blake2b(f"{seed}/{stream}/{frame}".encode(), digest_size=8).digest()
        generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest, "big", signed=True))
        parts.append(torch.randn(channels, h, w, generator=generator))
    return torch.stack(parts, dim=1)[None]
