"""The engine of a run: its networks, wherever they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..callbacks import ignore
from ..flow.estimate import NeighbourFlow
from ..frames.detail import with_detail
from ..models.budgets import decode_bytes, pass_bytes
from ..models.unet import TemporalUNet
from ..models.vae import LATENT_SCALE, TemporalVAE
from ..sampling.ladder import Setting
from ..sampling.pipeline import decode_group, velocity
from ..sampling.stream import DDIM, VelocityDDIM
from ..sampling.tiles import plan_tiles, tiled_predict
from .params import LongVideoParams

T = TypeVar("T")

Predict = Callable[[Tensor, int, Tensor, Setting], Tensor]
"""The U-Net's prediction for one segment, guidance applied: from its latent (1, 4, n, h, w), the
0-based step, and its noised frames (1, 3, n, h, w)."""


Stage = Literal["sample", "decode"]


class Engine(Protocol):
    """The networks of a run.

    Besides settings and input, only ``weights`` decides the result. Methods that take a
    ``setting`` may raise when memory runs out, and are then called with a smaller one.
    """

    @property
    def ddim(self) -> DDIM:
        """The DDIM arithmetic for predictions of ``Predict``."""
        ...

    device: torch.device
    """The device of the U-Net."""

    def weights(self, cache: str | os.PathLike[str]) -> Mapping[str, str]:
        """Hashes in hex of networks and texts, by name; ``cache`` is a folder to keep them."""
        ...

    def sampling(self, shape: tuple[int, int, int], work: Callable[[Predict], T]) -> T:
        """The result of ``work(predict)``, with the U-Net ready.

        ``shape`` is (frames, h, w) of the segments; ``predict`` may be called only while ``work``
        runs.
        """
        ...

    def flow(self, earlier: Tensor, later: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
        """Forward and backward flow, (n, 2, h, w) in pixels, between frames (n, 3, h, w)."""
        ...

    def decode(self, latents: Tensor, frames: Tensor, setting: Setting) -> Tensor:
        """Pixels (1, 3, n, 4h, 4w) in [-1, 1] of latents (1, 4, n, h, w), decoded as one group.

        They may be on the device, and still be computed there. Frames that overflow are NaN.
        """
        ...

    def in_wider(self) -> AbstractContextManager[None] | None:
        """A context in which frames that overflowed are decoded again; None if there is none."""
        ...

    def memory(self, stage: Stage, frames: int, h: int, w: int, *, least: bool = False) -> int:
        """Bytes on the device for a pass over ``frames`` frames (h, w), or for decoding them.

        The weights are included; with ``least``, the bytes are the minimum without weights. 0 if
        not known.
        """
        ...

    def room(self) -> int:
        """Bytes of the device's memory; 0 if not known or not limited."""
        ...

    def release(self) -> None:
        """Free cached memory, after memory ran out."""
        ...

    def ran_out(self, error: BaseException) -> bool:
        """Whether an error says that memory ran out; asked about every error of a pass."""
        ...


class CoreEngine:
    """The core's own networks on one device."""

    def __init__(
        self,
        unet: TemporalUNet,
        vae: TemporalVAE,
        context: Tensor,
        flow_model: nn.Module,
        params: LongVideoParams,
        hashes: Mapping[str, str],
    ) -> None:
        """``context`` (2, tokens, dim) is [negative, positive]; ``hashes`` are of the weights."""
        place = next(unet.parameters())
        self.unet, self.vae, self.params, self.hashes = unet, vae, params, hashes
        self.device, self.dtype = place.device, place.dtype
        self.context = context.to(place)
        self.neighbours = NeighbourFlow(flow_model, params.flow_iterations)
        self.ddim = VelocityDDIM(params.steps, self.device, unet.params.trailing)

    def weights(self, cache: str | os.PathLike[str]) -> Mapping[str, str]:
        return self.hashes

    def sampling(self, shape: tuple[int, int, int], work: Callable[[Predict], T]) -> T:
        return work(self.predict)

    @torch.inference_mode()
    def predict(self, latent: Tensor, step: int, low_res: Tensor, setting: Setting) -> Tensor:
        x = latent.to(self.device, self.dtype)
        tiles = plan_tiles(x.shape[-2:], setting.tile, setting.overlap)
        guided = self.params.guided.covers(step, self.params.steps)
        v = velocity(
            tiled_predict(self.unet, tiles),
            x,
            self.ddim.times[step],
            low_res.to(x),
            self.context,
            self.params.noise_level,
            self.params.guidance if guided else 1.0,
        )
        return v.to(latent)

    def flow(self, earlier: Tensor, later: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
        frames = earlier.to(self.device), later.to(self.device)
        forward, backward = self.neighbours.both_ways(*frames, setting.longest_side)
        return forward, backward

    @torch.inference_mode()
    def decode(self, latents: Tensor, frames: Tensor, setting: Setting) -> Tensor:
        device = next(self.vae.parameters()).device
        latents = latents.to(device)
        return decoded(self.vae, latents, frames, self.params, setting)

    def in_wider(self) -> AbstractContextManager[None] | None:
        return None if self.vae.wider is None else self.vae.in_wider()

    def memory(self, stage: Stage, frames: int, h: int, w: int, *, least: bool = False) -> int:
        network = self.unet if stage == "sample" else self.vae
        own = 0 if least else sum(x.nbytes for x in network.parameters())
        each = next(network.parameters()).itemsize
        if stage == "decode":
            return own + decode_bytes(self.vae.params, frames, h, w, each, least)
        halves = 1 if least else self.params.halves
        return own + pass_bytes(self.unet.params, halves, frames, h, w, each, least)

    def room(self) -> int:
        if self.device.type != "cuda":
            return 0
        return torch.cuda.get_device_properties(self.device).total_memory

    def release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def ran_out(self, error: BaseException) -> bool:
        return False


def decoded(
    vae: TemporalVAE,
    latents: Tensor,
    frames: Tensor,
    params: LongVideoParams,
    setting: Setting,
    check_cancelled: Callable[[], None] = ignore,
) -> Tensor:
    """``Engine.decode`` by a loaded VAE on the device of ``latents``."""
    z = latents.float() / LATENT_SCALE
    tiles = plan_tiles(z.shape[-2:], setting.tile, setting.overlap)
    low_res = frames.to(z)
    pixels = decode_group(
        vae,
        z,
        low_res,
        params.lr_guidance,
        params.color,
        tiles,
        params.self_ensemble,
        check_cancelled,
    )
    return with_detail(pixels, low_res, params.detail)
