"""A pool of training clips on the device, each with its latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...flow.builtin import BuiltinFlow
from ...flow.estimate import NeighbourFlow
from ...models.unet import TemporalUNet
from ...models.vae import LATENT_SCALE, TemporalVAE
from ...sampling import schedule
from ...weights import included
from ..data.batches import poor
from ..unet import sample_clips

NEGATIVE_SHARE = 0.1
"""Share of clips with the negative text and a poor target."""
FLOW_ITERATIONS = 10

Latents = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]
"""From clean and degraded clips: latents (b, 4, t, h, w) of variance 1, and which are poor (b,)."""


def pixels(x: Tensor) -> Tensor:
    """Convert (b, t, h, w, 3) uint8 to (b, 3, t, h, w) in [-1, 1]."""
    return x.float().div_(127.5).sub_(1).permute(0, 4, 1, 2, 3)


class Pool:
    """The last ``size`` added clips, and their latents."""

    def __init__(self, size: int, frames: int, side: int, device: torch.device) -> None:
        low = side // 4

        def room(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(size, *shape, dtype=dtype, device=device)

        self.clean = room(frames, side, side, 3, dtype=torch.uint8)
        self.low = room(frames, low, low, 3, dtype=torch.uint8)
        self.latent = room(frames, low, low, 4, dtype=torch.float16)
        self.poor = room(dtype=torch.bool)
        self.size, self.count, self.at = size, 0, 0

    def add(
        self, clean: np.ndarray, low: np.ndarray, latents: Latents, rng: np.random.Generator
    ) -> None:
        """Add clips and their latents, in place of the oldest ones."""
        device = self.clean.device
        a, b = (torch.from_numpy(x).to(device) for x in (clean, low))
        z, spoilt = latents(pixels(a), pixels(b), rng)
        n = len(a)
        place = (torch.arange(n, device=device) + self.at) % self.size
        self.clean[place], self.low[place], self.poor[place] = a, b, spoilt
        self.latent[place] = z.clamp(-30, 30).half().permute(0, 2, 3, 4, 1)
        self.at, self.count = (self.at + n) % self.size, min(self.size, self.count + n)

    def crop(self, b: int, t: int, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Random pieces of t frames and k x k degraded pixels: clean, degraded, latents, poor."""
        device, (_, frames, side) = self.clean.device, self.low.shape[:3]

        def draw(n: int) -> Tensor:
            return torch.randint(0, n, (b, 1), device=device)

        def along(n: int) -> Tensor:
            return torch.arange(n, device=device)

        which = draw(self.count)
        time = draw(frames - t + 1) + along(t)
        y, x = draw(side - k + 1), draw(side - k + 1)

        def cut(full: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
            return full[
                which[:, :, None, None], time[:, :, None, None],
                rows[:, None, :, None], columns[:, None, None, :],
            ]  # fmt: skip

        clean = cut(self.clean, 4 * y + along(4 * k), 4 * x + along(4 * k))
        low, z = (cut(full, y + along(k), x + along(k)) for full in (self.low, self.latent))
        return pixels(clean), pixels(low), z.float().permute(0, 4, 1, 2, 3), self.poor[which[:, 0]]


def encoded(vae: TemporalVAE, autocast: Callable[[], torch.autocast]) -> Latents:
    """Targets of the U-Net: the encoder's latents, for a share of the clips of poor pictures."""

    @torch.no_grad()
    def latents(clean: Tensor, low: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        spoilt = rng.random(len(clean)) < NEGATIVE_SHARE
        for i in np.flatnonzero(spoilt):
            clean[i] = poor(clean[i], rng)
        with autocast():
            z = torch.cat([vae.encode(part).float() for part in clean.split(8)])
        return z * LATENT_SCALE, torch.from_numpy(spoilt).to(clean.device)

    return latents


@dataclass(frozen=True)
class Texts:
    """The two texts of the small model, (tokens, dim)."""

    null: Tensor
    negative: Tensor


def sampled(unet: TemporalUNet, texts: Texts, autocast: Callable[[], torch.autocast]) -> Latents:
    """Inputs of the decoder: latents sampled by the U-Net, mostly as in the shipped workflow."""

    @torch.no_grad()
    def latents(clean: Tensor, low: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        level = included.NOISE_LEVEL if rng.random() < 0.6 else int(rng.integers(0, 251))
        steps = included.STEPS if rng.random() < 0.75 else int(rng.integers(2, 7))
        guidance = 1.0 if rng.random() < 0.85 else float(rng.uniform(1.2, 3.0))
        carried = included.PROPAGATED if rng.random() < 0.75 else 0
        noise = torch.randn(len(low), 4, *low.shape[2:], device=low.device)
        noised = schedule.noise_low_res(low, torch.randn_like(low), level)
        flows = flows_of(low) if carried else None
        with autocast():
            z = sample_clips(
                unet, noise, noised, level, texts.null, steps,
                negative=texts.negative, guidance=guidance, flows=flows, propagated=carried,
            )  # fmt: skip
        return z, torch.zeros(len(low), dtype=torch.bool, device=low.device)

    return latents


def undone(clean: Tensor, low: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """``Latents`` of nothing, where the latents are sampled in the step itself."""
    b, _, t, h, w = low.shape
    return low.new_zeros(b, 4, t, h, w), torch.zeros(b, dtype=torch.bool, device=low.device)


def with_gradient(
    unet: TemporalUNet, texts: Texts, low: Tensor, negative: Tensor, rng: np.random.Generator
) -> Tensor:
    """Latents (b, 4, t, h, w) sampled as in use, whose last pass has a gradient.

    Mostly there is only that pass, from noise, as with the shipped settings. ``negative`` (b,) says
    which clips get the negative text.
    """
    level = included.NOISE_LEVEL if rng.random() < 0.6 else int(rng.integers(0, 251))
    steps = included.STEPS if rng.random() < 0.75 else int(rng.integers(2, 5))
    carried = included.PROPAGATED if rng.random() < 0.75 and low.shape[2] > 1 else 0
    noised = schedule.noise_low_res(low, torch.randn_like(low), level)
    text = torch.where(negative[:, None, None], texts.negative, texts.null)
    flows = flows_of(low) if carried else None
    noise = torch.randn(len(low), 4, *low.shape[2:], device=low.device)
    return sample_clips(
        unet, noise, noised, level, text, steps, flows=flows, propagated=carried, gradient=True
    )


def flows_of(low: Tensor) -> tuple[Tensor, Tensor]:
    """Flows between neighbours of a batch of clips, forward and backward, (b, 2, t - 1, h, w)."""
    b, _, t = low.shape[:3]
    first, second = (x.transpose(1, 2).flatten(0, 1) for x in (low[:, :, :-1], low[:, :, 1:]))
    flow = NeighbourFlow(BuiltinFlow().to(low.device), FLOW_ITERATIONS)
    forward, backward = (
        x.unflatten(0, (b, t - 1)).transpose(1, 2) for x in flow.both_ways(first, second)
    )
    return forward, backward
