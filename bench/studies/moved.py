"""Kernels and bytes of passes and decodes at the released and included sizes, counted anywhere.

The networks run on PyTorch's meta device as on a GPU with enough memory. The kernels of attention
are not counted, as it is not known how often they read their operands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from uav_core.devices import memory, norms
from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import estimate_flows
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams
from uav_core.sampling.ddim import VelocityDDIM
from uav_core.sampling.stream import LatentStream, StreamParams
from uav_core.training.evaluate import Weights
from uav_core.weights import included

from ..cases.case import TINY_UNET, TINY_VAE
from ..measure.kernels import Moved, count_moved
from .real_sizes import META, fused, unet_inputs, vae_inputs

SIZE, QUICK_SIZE = (180, 320), (16, 16)
FRAMES = 33


@dataclass(frozen=True)
class Way:
    """Counts for one way of computing norms."""

    title: str
    work: dict[str, Moved]
    """Counts by name of the work."""


def measure_moved(quick: bool = False) -> list[Way]:
    """Count passes and decodes with plain and with fused norms, and what a run needs besides.

    The released networks take 2 x 8 and 3 frames at once, the included ones 8 and 8.
    """
    h, w = QUICK_SIZE if quick else SIZE
    unet = TemporalUNet(TINY_UNET if quick else UNetParams(), dtype=torch.float16, device=META)
    sizes = TINY_VAE if quick else VAEParams()
    half, vae = (
        TemporalVAE(sizes, dtype=dtype, device=META, attend=fused)
        for dtype in (torch.float16, torch.float32)
    )
    weights = Weights.load(included.FOLDER)
    small = TemporalUNet(weights.unet.params, dtype=torch.float16, device=META)
    decoder = TemporalVAE(weights.vae.params, dtype=torch.float16, device=META, attend=fused)

    def counted() -> dict[str, Moved]:
        return {
            "U-Net pass, fp16": count_moved(lambda: unet(*unet_inputs(unet, 2, h, w), fused)),
            "decode, fp16": count_moved(lambda: half.decode(*vae_inputs(half, h, w))),
            "decode, fp32": count_moved(lambda: vae.decode(*vae_inputs(vae, h, w))),
            "included U-Net pass, fp16": count_moved(
                lambda: small(*unet_inputs(small, 1, h, w), fused)
            ),
            "included decode, fp16": count_moved(
                lambda: decoder.decode(*vae_inputs(decoder, h, w, included.FRAMES_PER_GROUP))
            ),
        }

    with mock.patch.object(memory, "free", lambda _: 2**50):
        plain = Way("plain norms", counted())
        with fused_norms():
            fast = Way("fused norms", counted())
        return [plain, fast, Way("", besides(h, w))]


def besides(h: int, w: int) -> dict[str, Moved]:
    """What a run needs besides its networks, for FRAMES frames: flow, and a step of a long video.

    The step propagates: DDIM, both sweeps, and blending of the segments' predictions.
    """
    frames = torch.zeros((1, 3, FRAMES, h, w), device=META)
    params = StreamParams(FRAMES, h, w, steps=1, propagation_steps=(0,))
    latent = torch.zeros((1, params.channels, FRAMES, h, w), device=META)
    flow = torch.zeros((1, 2, h, w), device=META)

    def step() -> None:
        LatentStream(
            params,
            lambda x, *_: x,
            lambda taken: latent[:, :, taken.start : taken.stop],
            lambda _: (flow, flow),
            ddim=VelocityDDIM(params.steps, META),
            device=META,
        ).advance(FRAMES)

    # Autocast does not know the meta device.
    with mock.patch.object(torch, "autocast", lambda *_, **__: contextlib.nullcontext()):
        flows = count_moved(lambda: estimate_flows(BuiltinFlow().to(META), frames))
    return {
        f"built-in flow, {FRAMES} frames": flows,
        f"a step beside the U-Net, {FRAMES} frames": count_moved(step),
    }


@contextlib.contextmanager
def fused_norms() -> Iterator[None]:
    """Context with norms as by Triton: three kernels, which read twice and write once."""

    def normed(x: Tensor, *_: Any) -> Tensor:
        sums = x.sum((0, *range(2, x.ndim)))
        scale = sums.clone()
        return x.mul(scale.view(1, -1, *[1] * (x.ndim - 2)))

    def joined(x: Tensor, onto: Tensor, _: Tensor) -> Tensor:
        return x.add_(onto)

    with (
        mock.patch.object(norms, "has_kernels", lambda _: True),
        mock.patch.object(norms, "_kernels", lambda: SimpleNamespace(normed=normed, joined=joined)),
    ):
        yield
