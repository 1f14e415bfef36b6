"""Cases; each runs the pack and the baseline on the same weights and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from uav_core import propagate
from uav_core.models.temporal import rotary_frequencies
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams
from uav_core.sampling.segments import DECODE_GROUP, SEGMENT_LENGTH

from . import baseline
from .weights import Weights

Network = TypeVar("Network", bound=nn.Module)

TEXT_TOKENS = 77
PROPAGATED_FRAMES = 20
TINY_UNET = UNetParams(channels=(32, 64, 64, 128), context_dim=64, heads=2, time_dim=128)
TINY_VAE = VAEParams(channels=(32, 32, 64), condition_channels=32)


@dataclass(frozen=True)
class Setup:
    """Device and sizes of a run."""

    device: torch.device
    size: int = 32
    """Height and width of the latents of a pass and of a decode group; propagation has twice it."""
    quick: bool = False
    """Use tiny networks; this shows that everything runs, but says nothing about speed."""
    run_steps: int = 1
    """Sampling steps of a whole run; if more than one, it is timed once."""


@dataclass(frozen=True)
class Case:
    """Two calls that must give the same result."""

    title: str
    pack: Callable[[], Tensor]
    plain: Callable[[], Tensor]
    network: nn.Module | None = None
    """The network that is calibrated afterwards."""
    tolerance: float = 1e-3
    """Largest difference of the two results, relative to the largest value (at least 1)."""
    most_runs: int = 100
    """Largest number of timed runs, for slow calls."""
    whole: Case | None = None
    """A longer case of the same work, timed once; its ``parts`` says how many times as long."""
    parts: int = 1


def unet_case(setup: Setup) -> Case:
    """One pass of the U-Net as in sampling: a segment with both texts of guidance."""
    params = TINY_UNET if setup.quick else UNetParams()
    network = generated(TemporalUNet(params, device="meta"), setup.device)
    weights = plain_weights(network)
    inputs = unet_inputs(params, setup.size, setup.device)
    return Case(
        f"U-Net pass, 2 x {SEGMENT_LENGTH} frames of {setup.size}x{setup.size}",
        lambda: network(*inputs),
        lambda: baseline.unet(weights, *inputs),
        network,
    )


def unet_inputs(
    params: UNetParams, size: int | tuple[int, int], device: torch.device
) -> tuple[Tensor, ...]:
    """Latent, time step, low-resolution frames, text and noise level of one pass.

    ``size`` is height and width, or the side of a square.
    """
    shape = (SEGMENT_LENGTH, *as_pair(size))
    return (
        noise(device, 2, params.out_channels, *shape),
        torch.full((2,), 500, device=device),
        noise(device, 2, params.in_channels - params.out_channels, *shape).clamp(-1, 1),
        noise(device, 2, TEXT_TOKENS, params.context_dim),
        torch.full((2,), 120, device=device),
    )


def vae_case(setup: Setup) -> Case:
    """One group of frames through the decoder of ``vae_video``."""
    params = TINY_VAE if setup.quick else VAEParams()
    network = generated(TemporalVAE(params, device="meta"), setup.device)
    weights = plain_weights(network)
    z, low_res = vae_inputs(params, setup.size, setup.device)
    return Case(
        f"VAE decode, {DECODE_GROUP} frames of {setup.size}x{setup.size}",
        lambda: network.decode(z, low_res),
        lambda: baseline.vae_decode(weights, z, low_res),
        network,
    )


def vae_inputs(
    params: VAEParams, size: int | tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Latents and low-resolution frames of one group; ``size`` as in ``unet_inputs``."""
    shape = (DECODE_GROUP, *as_pair(size))
    return (
        noise(device, 1, params.latent_channels, *shape),
        noise(device, 1, 3, *shape).clamp(-1, 1),
    )


def as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size that may be the side of a square."""
    return (size, size) if isinstance(size, int) else size


def propagation_case(setup: Setup) -> Case:
    """Both sweeps over a moving clip, with flows that contradict each other in one corner.

    No position is near the middle of two pixels and no error near the threshold, as rounding
    would decide there, and the two sides could differ.
    """
    frames, size = PROPAGATED_FRAMES, 2 * setup.size
    x0 = noise(setup.device, 1, 4, frames, size, size)
    shape = (1, 2, frames - 1, size, size)
    drift = torch.tensor([1.4, -0.6], device=setup.device).view(1, 2, 1, 1, 1)
    wobble = 0.05 * noise(setup.device, *shape).clamp(-1, 1)
    forward, backward = drift + wobble, -drift.expand(shape).contiguous()
    backward[..., : size // 2, : size // 2] += 3
    return Case(
        f"Propagation, {frames} frames of {size}x{size}",
        lambda: propagate(x0, forward, backward),
        lambda: baseline.propagate(x0, forward, backward),
    )


def noise(device: torch.device, *shape: int) -> Tensor:
    """Standard normal numbers, the same on every device."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)


def generated(network: Network, device: torch.device) -> Network:
    """``network``, built on the meta device, with random weights on ``device``.

    Activations keep their size at any depth, so that none becomes infinite.
    """
    network = network.to_empty(device=device).eval().requires_grad_(False)
    generator = torch.Generator(device).manual_seed(0)
    for name, weight in network.named_parameters():
        if weight.ndim > 1:
            weight.normal_(0, weight[0].numel() ** -0.5, generator=generator)
        else:
            weight.normal_(float(name.endswith("weight")), 0.1, generator=generator)
    for table in network.buffers():
        table.copy_(rotary_frequencies(2 * len(table)))
    return network


def plain_weights(network: nn.Module) -> Weights:
    """The network's weights in PyTorch's default layout, not copied if they have it already."""
    return Weights({k: v.contiguous() for k, v in network.state_dict().items()})
