"""How time and memory grow with frames and pixels, on a small network."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import UPSCALE, TemporalVAE
from uav_core.sampling.pipeline import decode, sample

from ..cases.case import TEXT_TOKENS, TINY_UNET, TINY_VAE, generated, noise
from ..measure.compare import seconds
from ..measure.memory import measure_peak

FRAMES = (8, 32, 128, 512)
SIDES = (64, 128, 256, 512)
"""Sides of the upscaled frames, in pixels."""
FIXED_SIDE, FIXED_FRAMES = 64, 8
TRIES = 2


@dataclass(frozen=True)
class Point:
    """One run: a sampling step and the decoding of all its groups."""

    frames: int
    side: int
    seconds: float
    peak: int
    """Peak bytes of live tensors, with the results of the whole clip."""


@torch.inference_mode()
def measure_scaling(device: torch.device, quick: bool) -> dict[str, list[Point]]:
    """Measure growing numbers of frames at a fixed size, then growing sides at fixed frames."""
    unet = generated(TemporalUNet(TINY_UNET, device="meta"), device)
    vae = generated(TemporalVAE(TINY_VAE, device="meta"), device)

    def point(frames: int, side: int) -> Point:
        shape = (frames, side // UPSCALE, side // UPSCALE)
        clip, start = noise(device, 1, 3, *shape).clamp(-1, 1), noise(device, 1, 4, *shape)
        text = noise(device, 2, TEXT_TOKENS, TINY_UNET.context_dim)

        def run() -> torch.Tensor:
            latents = sample(unet, clip, text, steps=1, noise=start, low_res_noise=clip)
            return decode(vae, latents, clip)

        peak = measure_peak(run, device).live
        return Point(frames, side, min(seconds(run, device) for _ in range(TRIES)), peak)

    few = slice(0, 2 if quick else None)
    return {
        "frames": [point(n, FIXED_SIDE) for n in FRAMES[few]],
        "pixels": [point(FIXED_FRAMES, side) for side in SIDES[few]],
    }


def exponent(points: list[Point], what: str) -> float:
    """Exponent of frames, or pixels, in the growth of time: the slope of the logarithms."""
    sizes = [math.log(p.frames if what == "frames" else p.side**2) for p in points]
    times = [math.log(p.seconds) for p in points]
    x, y = sum(sizes) / len(sizes), sum(times) / len(times)
    above = sum((a - x) * (b - y) for a, b in zip(sizes, times, strict=True))
    return above / sum((a - x) ** 2 for a in sizes)
