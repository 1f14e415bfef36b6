"""A whole run: a clip of 20 frames sampled in segments, with guidance."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.sampling.pipeline import sample

from . import baseline
from .case import TEXT_TOKENS, TINY_UNET, Case, Setup, generated, noise, plain_weights

RUN_FRAMES = 20
GUIDANCE = 6.0
NOISE_LEVEL = 120


def run_case(setup: Setup) -> Case:
    """Sampling of 20 frames: three segments a step, of which the baseline runs the last one twice.

    The case has one step; its ``whole`` has ``setup.run_steps``, if these are more.
    """
    params = TINY_UNET if setup.quick else UNetParams()
    network = generated(TemporalUNet(params, device="meta"), setup.device)
    weights = plain_weights(network)
    shape = (RUN_FRAMES, setup.size, setup.size)
    frames = noise(setup.device, 1, 3, *shape).clamp(-1, 1)
    start = noise(setup.device, 1, params.out_channels, *shape)
    low_res_noise = noise(setup.device, 1, 3, *shape)
    context = noise(setup.device, 2, TEXT_TOKENS, params.context_dim)

    def pack(steps: int) -> Tensor:
        return sample(
            network,
            frames,
            context,
            steps=steps,
            guidance=GUIDANCE,
            noise_level=NOISE_LEVEL,
            noise=start,
            low_res_noise=low_res_noise,
        )

    def plain(steps: int) -> Tensor:
        return baseline.sample(
            weights, frames, context, start, low_res_noise, steps, GUIDANCE, NOISE_LEVEL
        )

    def case(steps: int) -> Case:
        many = "step" if steps == 1 else "steps"
        title = f"Sampling, {RUN_FRAMES} frames of {setup.size}x{setup.size}, {steps} {many}"
        return Case(title, lambda: pack(steps), lambda: plain(steps), most_runs=3, parts=steps)

    longer = case(setup.run_steps) if setup.run_steps > 1 else None
    return replace(case(1), whole=longer)
