"""DDIM with eta 0, for the predictions that models return in the core and in ComfyUI.

The pack's own samplers use it: for a clip at once, for a scene as a stream and in training.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from . import schedule


class DDIM(Protocol):
    """How a prediction becomes the next latent. Every method works frame by frame."""

    name: str
    """Stored in a stream's state, which only fits a stream of the same arithmetic."""

    def start(self, noise: Tensor) -> Tensor:
        """The first step's latent from standard normal noise."""
        ...

    def split(self, latent: Tensor, prediction: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The clean latent and the noise estimate; only the former is propagated."""
        ...

    def join(self, x0: Tensor, eps: Tensor, step: int) -> Tensor:
        """The latent of step ``step + 1``."""
        ...

    def end(self, latent: Tensor) -> Tensor:
        """The result from the last step's latent, with unit variance."""
        ...


class VelocityDDIM:
    """For a model that predicts v, with the variance preserved: the reference's form."""

    name = "velocity"

    def __init__(
        self, steps: int, device: torch.device | str = "cpu", trailing: bool = False
    ) -> None:
        """``device`` should be that of the latents: otherwise every step waits for a copy."""
        times = schedule.timesteps(steps, trailing)
        self.times: list[int] = times.tolist()
        """The training step of each step, for the model."""
        self.alphas = schedule.alphas_cumprod()[times].to(device)
        self.landings = schedule.previous_alphas(steps, trailing).to(device)

    def start(self, noise: Tensor) -> Tensor:
        return noise

    def split(self, latent: Tensor, prediction: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return schedule.predict(latent, prediction, self.alphas[step].to(latent))

    def join(self, x0: Tensor, eps: Tensor, step: int) -> Tensor:
        return schedule.ddim_step(x0, eps, self.landings[step].to(x0))

    def end(self, latent: Tensor) -> Tensor:
        return latent


class DenoisedDDIM:
    """For a model that predicts the clean latent at a sigma, with the variance exploding.

    This is ComfyUI's form. ``sigmas`` (steps + 1,), as from ``schedule.sigmas``, are best on the
    latents' device.
    """

    name = "denoised"

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas = sigmas

    def start(self, noise: Tensor) -> Tensor:
        return noise * (1 + self.sigmas[0].to(noise) ** 2).sqrt()

    def split(self, latent: Tensor, prediction: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return prediction, (latent - prediction) / self.sigmas[step].to(latent)

    def join(self, x0: Tensor, eps: Tensor, step: int) -> Tensor:
        return x0 + eps * self.sigmas[step + 1].to(x0)

    def end(self, latent: Tensor) -> Tensor:
        # The schedule ends on its first entry, not on 0: back to unit variance there.
        return latent / (1 + self.sigmas[-1].to(latent) ** 2).sqrt()
