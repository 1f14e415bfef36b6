"""The diffusion schedule: noise levels, time steps and the DDIM step.

Source: the released scheduler configs; section 3.1 of the paper for the noise of the input.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..errors import InputError

TRAIN_STEPS = 1000
BETA_START, BETA_END = 1e-4, 0.02
STEPS_OFFSET = 1
MAX_NOISE_LEVEL = 350
DEFAULT_NOISE_LEVEL = 120


@functools.cache
def alphas_cumprod() -> Tensor:
    """(1000,) fp32 on the CPU: the share of signal variance at each training step.

    The betas are "scaled linear": the squares of a linear ramp of square roots. The same table
    noises the latent and the low-resolution frames.
    """
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_STEPS, dtype=torch.float32) ** 2
    return torch.cumprod(1.0 - betas, dim=0)


def timesteps(steps: int, trailing: bool = False) -> Tensor:
    """(steps,) int64, descending: the training steps at which DDIM calls the model.

    The reference has leading spacing with an offset of 1, which ends at 1: its last pass finds next
    to no noise. Trailing spacing starts at 999 and ends ``1000 / steps`` above the end, so that
    every pass has work; it needs weights that are made for it (``UNetParams.trailing``). Source of
    both names: "Common Diffusion Noise Schedules and Sample Steps are Flawed" (arXiv 2305.08891).

    Raises InputError unless 1 <= steps <= 999.
    """
    if not 1 <= steps < TRAIN_STEPS:
        raise InputError(f"{steps} sampling steps: expected 1 to {TRAIN_STEPS - 1}.")
    if trailing:
        return (torch.arange(steps, 0, -1) * TRAIN_STEPS / steps).round().long() - 1
    return torch.arange(steps - 1, -1, -1) * (TRAIN_STEPS // steps) + STEPS_OFFSET


def previous_alphas(steps: int, trailing: bool = False) -> Tensor:
    """(steps,) the alpha after each step of ``timesteps``; the last is alphas_cumprod()[0]."""
    table, grid = alphas_cumprod(), timesteps(steps, trailing)
    return torch.cat((table[grid[1:]], table[:1]))


def sigmas(steps: int, trailing: bool = False) -> Tensor:
    """(steps + 1,) fp32: sqrt((1 - a) / a) at every DDIM step, and after the last one.

    Sampling in the variance-exploding form x / sqrt(a) with these equals DDIM with eta 0. The end
    is not 0: the released schedule stops at the first entry of the table.
    """
    return sigmas_at(timesteps(steps, trailing))


def sigmas_at(times: Tensor) -> Tensor:
    """``sigmas`` for any descending time steps (steps,)."""
    a = torch.cat((alphas_cumprod()[times], alphas_cumprod()[:1]))
    return ((1 - a) / a).sqrt()


def check_noise_level(noise_level: int) -> int:
    """The noise level, if the network was trained on it; InputError otherwise."""
    if int(noise_level) != noise_level or not 0 <= noise_level <= MAX_NOISE_LEVEL:
        raise InputError(
            f"Noise level {noise_level}: expected a whole number from 0 (keeps the input) to "
            f"{MAX_NOISE_LEVEL} (most freedom); {DEFAULT_NOISE_LEVEL} is the default."
        )
    return int(noise_level)


def noise_low_res(low_res: Tensor, noise: Tensor, noise_level: int) -> Tensor:
    """Low-resolution frames with the noise of ``noise_level`` added.

    Level 0 still adds the first entry of the table. ``low_res`` in [-1, 1] and ``noise`` share
    one shape.
    """
    # Half precision would round the signal's share of low levels to 1, which leaves no noise.
    exact = torch.promote_types(low_res.dtype, torch.float32)
    a = alphas_cumprod()[check_noise_level(noise_level)].to(low_res.device, exact)
    return a.sqrt().to(low_res) * low_res + (1 - a).sqrt().to(low_res) * noise


def predict(sample: Tensor, v: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """x0 and eps from a noisy sample and the predicted v, at signal share ``alpha``."""
    signal, noise = alpha.sqrt(), (1 - alpha).sqrt()
    return signal * sample - noise * v, signal * v + noise * sample


def ddim_step(x0: Tensor, eps: Tensor, alpha_prev: Tensor) -> Tensor:
    """The deterministic DDIM step (eta 0) to signal share ``alpha_prev``."""
    return alpha_prev.sqrt() * x0 + (1 - alpha_prev).sqrt() * eps
