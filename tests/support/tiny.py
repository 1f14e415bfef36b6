"""The tiny networks of the golden data, with weights made from names."""

from __future__ import annotations

from functools import cache

import torch
from generated import det, generate, shapes_of

from uav_core import load_unet, load_vae
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams

UNET = UNetParams(channels=(32, 64, 64, 128), context_dim=48, heads=2, time_dim=128)
TRAINED_UNET = UNetParams(
    channels=(32, 64),
    resnets=1,
    attention=(False, True),
    text_only=(True, False),
    context_dim=24,
    heads=2,
    time_dim=32,
)
"""Sizes small enough for training in a test."""
QUICK_UNET = UNetParams(
    channels=(32, 32),
    resnets=1,
    attention=(False, True),
    text_only=(True, False),
    context_dim=48,
    heads=1,
    time_dim=32,
)
QUICK_VAES = {
    "vae_3d": VAEParams(channels=(32, 32, 32), resnets=1, temporal=False),
    "vae_video": VAEParams(channels=(32, 32, 32), resnets=1, condition_channels=32),
}
"""The smallest sizes with every kind of layer, for tests of any values."""
VAES = {
    "vae_3d": VAEParams(channels=(32, 32, 64), temporal=False),
    "vae_video": VAEParams(channels=(32, 32, 64), condition_channels=32),
}


@cache
def unet_weights(params: UNetParams = UNET) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        shapes = shapes_of(TemporalUNet(params, device="meta"))
    return generate("unet.", shapes)


@cache
def vae_weights(kind: str, params: VAEParams | None = None) -> dict[str, torch.Tensor]:
    return generate("vae.", shapes_of(TemporalVAE(params or VAES[kind], device="meta")))


@cache
def unet() -> TemporalUNet:
    return load_unet(unet_weights())


@cache
def vae(kind: str) -> TemporalVAE:
    return load_vae(vae_weights(kind))


@cache
def quick_unet() -> TemporalUNet:
    return load_unet(unet_weights(QUICK_UNET))


@cache
def quick_vae(kind: str = "vae_3d") -> TemporalVAE:
    """``vae_3d`` takes a fifth of the time of ``vae_video``."""
    return load_vae(vae_weights(kind, QUICK_VAES[kind]))


def context() -> torch.Tensor:
    """Text embeddings (2, 77, 48): negative, positive."""
    return det("ctx", (2, 77, 48))
