"""What computes: the networks, wherever they run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..flow.bounded import both_ways_bounded
from ..flow.estimate import NeighbourFlow
from ..frames.color import ColorMode
from ..models.unet import TemporalUNet
from ..models.vae import LATENT_SCALE, TemporalVAE
from ..sampling.guidance import WHOLE_RUN, GuidanceRange
from ..sampling.pipeline import decode_group, velocity
from ..sampling.schedule import timesteps
from ..sampling.stream import DDIM, VelocityDDIM
from ..sampling.tiles import square_tiles, tiled_predict
from .fallback import Setting

T = TypeVar("T")


class Engine(Protocol):
    """The networks of a run.

    Everything that decides the result but the settings and the input is in ``weights``. Every
    method may raise when memory runs out; it is then called again with a smaller ``setting``.
    """

    ddim: DDIM
    """The arithmetic that goes with what ``predict`` returns."""

    def weights(self, cache: str | os.PathLike[str]) -> Mapping[str, str]:
        """Hashes in hex of networks and texts by name; ``cache`` is a folder to keep them in."""
        ...

    def prepare(self, frames: int, h: int, w: int) -> None:
        """Segments will have so many frames of (h, w), until this is called again."""
        ...

    def sampling(self, work: Callable[[], T]) -> T:
        """Run ``work``, which calls ``predict`` many times, with the U-Net ready."""
        ...

    def predict(self, latent: Tensor, step: int, low_res: Tensor, setting: Setting) -> Tensor:
        """What the U-Net says of one segment, guidance applied.

        ``latent`` (1, 4, n, h, w); ``low_res`` (1, 3, n, h, w), the frames noised.
        """
        ...

    def flow(self, earlier: Tensor, later: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
        """Forward and backward flow, (1, 2, h, w) in pixels, between frames (1, 3, h, w)."""
        ...

    def decode(self, latents: Tensor, frames: Tensor, setting: Setting) -> Tensor:
        """Pixels (1, 3, n, 4h, 4w) in [-1, 1] of latents (1, 4, n, h, w), of one group."""
        ...

    def memory(self, frames: int, group: int, h: int, w: int) -> tuple[int, int]:
        """Bytes on the device for a pass of ``frames`` (h, w), and for decoding a ``group``.

        With the weights that each needs; 0 where it is not known.
        """
        ...

    def device_name(self) -> str:
        """ "GPU" or "CPU"."""
        ...

    def release(self) -> None:
        """Hand back memory that is cached, after it ran out."""
        ...

    def ran_out(self, error: BaseException) -> bool:
        """Whether an error that torch does not name so says that memory ran out."""
        ...


class CoreEngine:
    """The core's own networks on one device."""

    def __init__(
        self,
        unet: TemporalUNet,
        vae: TemporalVAE,
        context: Tensor,
        flow_model: nn.Module,
        *,
        steps: int,
        guidance: float,
        guided: GuidanceRange = WHOLE_RUN,
        noise_level: int,
        lr_guidance: float = 1.0,
        color: ColorMode = "none",
        flow_iterations: int = 20,
        hashes: Mapping[str, str],
        check_cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        """``context`` (2, tokens, dim) is [negative, positive]; ``hashes`` are of the weights."""
        self.ddim: DDIM = VelocityDDIM(steps)
        self.unet, self.vae = unet, vae
        self.neighbours = NeighbourFlow(flow_model, flow_iterations)
        self.device = next(unet.parameters()).device
        self.dtype = next(unet.parameters()).dtype
        self.context = context.to(self.device, self.dtype)
        self.guidance, self.guided, self.lr_guidance = guidance, guided, lr_guidance
        self.color: ColorMode = color
        self.times = timesteps(steps).tolist()
        self.noise_level = noise_level
        self.hashes, self.check_cancelled = hashes, check_cancelled

    def weights(self, cache: str | os.PathLike[str]) -> Mapping[str, str]:
        return self.hashes

    def prepare(self, frames: int, h: int, w: int) -> None:
        pass

    def sampling(self, work: Callable[[], T]) -> T:
        return work()

    @torch.inference_mode()
    def predict(self, latent: Tensor, step: int, low_res: Tensor, setting: Setting) -> Tensor:
        h, w = latent.shape[-2:]
        plan = square_tiles(h, w, setting.tile, setting.overlap)
        x = latent.to(self.device, self.dtype)
        guided = self.guided.covers(step, len(self.times))
        v = velocity(
            tiled_predict(self.unet, plan, self.check_cancelled),
            x,
            self.times[step],
            low_res.to(x),
            self.context,
            self.noise_level,
            self.guidance if guided else 1.0,
        )
        return v.float().cpu()

    def flow(self, earlier: Tensor, later: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
        frames = earlier.to(self.device), later.to(self.device)
        forward, backward = both_ways_bounded(self.neighbours, *frames, setting.longest_side)
        return forward.cpu(), backward.cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor, frames: Tensor, setting: Setting) -> Tensor:
        device = next(self.vae.parameters()).device
        z, low_res = latents.to(device).float() / LATENT_SCALE, frames.to(device).float()
        tiles = square_tiles(*z.shape[-2:], setting.tile, setting.overlap)
        return decode_group(
            self.vae, z, low_res, self.lr_guidance, self.color, tiles, self.check_cancelled
        ).cpu()

    def memory(self, frames: int, group: int, h: int, w: int) -> tuple[int, int]:
        return 0, 0

    def device_name(self) -> str:
        return "CPU" if self.device.type == "cpu" else "GPU"

    def release(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def ran_out(self, error: BaseException) -> bool:
        return False
