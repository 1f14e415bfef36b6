"""The networks of a long video, run by ComfyUI."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import comfy.model_management as mm
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor

from ...uav_core.flow.estimate import NeighbourFlow, bounded_size
from ...uav_core.longvideo import LongVideoParams
from ...uav_core.longvideo.engine import Predict, Stage, decoded
from ...uav_core.sampling import schedule
from ...uav_core.sampling.ladder import Setting
from ...uav_core.sampling.stream import DDIM, DenoisedDDIM
from ...uav_core.weights.files import stamp
from ...uav_core.weights.hashes import weights_hash
from ..base.runtime import check_cancelled, device_room, load_models, ran_out
from ..model.vae import check_vae
from ..sampling.caches import without_caches
from ..sampling.condition import Conditioning, condition
from ..sampling.guidance import RangedGuider
from ..sampling.propagate import flow_memory
from ..sampling.sample import check_conditioning, check_model
from ..sampling.tiles import TiledModel, Wrapper, tiles_on
from .identity import changes, digest

T = TypeVar("T")


class ComfyEngine:
    """``uav_core.longvideo.Engine`` on MODEL, VAE, CONDITIONING and OPTICAL_FLOW.

    The model is sampled through ComfyUI's guider, so that LoRA, hooks, wrappers and memory budgets
    work. A wrapper gives each pass its own low-resolution frames.
    """

    def __init__(
        self,
        model: comfy.model_patcher.ModelPatcher,
        vae: Any,
        positive: Conditioning | None,
        negative: Conditioning | None,
        flow_model: Any,
        params: LongVideoParams,
    ) -> None:
        """Raises InputError, before anything is loaded, if the parts do not fit each other."""
        check_vae(vae)
        unet, small = check_model(model), torch.zeros((1, 3, 1, 16, 16))
        for name, text in (("positive", positive), ("negative", negative)):
            check_conditioning(name, condition(text, small, 0), unet)
        self.device: torch.device = model.load_device
        # From the given model: in ComfyUI 0.3.75 its clones have forgotten it.
        made = getattr(model, "cached_patcher_init", None)
        self.path = str(made[1][0]) if made else ""
        """The U-Net's file, if it is known."""
        model = model.clone()
        model.model_options.pop("context_handler", None)  # segments are planned outside of it
        without_caches(model)
        self.model, self.vae, self.flow_model, self.params = model, vae, flow_model, params
        self.neighbours = NeighbourFlow(flow_model.model, params.flow_iterations)
        self.texts = positive, negative
        self.ready: tuple[Any, ...] | None = None
        """What the VAE was last loaded for, unless another model or a lack of memory came since."""
        self.sigmas = schedule.sigmas(params.steps, unet.params.trailing)
        self.ddim: DDIM = DenoisedDDIM(self.sigmas.to(model.load_device))

    def weights(self, cache: str | os.PathLike[str]) -> Mapping[str, str]:
        inner: Any = self.model.model
        precision, vae = self.vae.vae_dtype, self.vae.first_stage_model.state_dict()
        return {
            "unet": file_or_tensors(self.path, inner.stamp, unpatched(self.model), cache),
            "unet dtype": digest(str(inner.get_dtype())),
            "patches": digest(self.model.patches),
            "vae": file_or_tensors(self.vae.path, self.vae.stamp, vae, cache),
            "flow": digest(self.flow_model.model.state_dict()),
            "positive": digest(self.texts[0]),
            "negative": digest(self.texts[1]),
            "device": digest(str(mm.get_torch_device().type)),
            # Left out for fp32, so that jobs made before other precisions existed still match.
            **({} if precision == torch.float32 else {"vae dtype": digest(str(precision))}),
            **{name: digest(value) for name, value in changes(self.model).items()},
        }

    def sampling(self, shape: tuple[int, int, int], work: Callable[[Predict], T]) -> T:
        self.ready = None
        guider = RangedGuider(self.model.clone(), self.params.guided, self.sigmas)
        # Placeholders of the right size: every pass brings its own frames and latent.
        frames, latent = torch.zeros((1, 3, *shape)), torch.zeros((1, 4, *shape))
        level = self.params.noise_level
        guider.set_conds(*(condition(text, frames, level) for text in self.texts))
        guider.set_cfg(self.params.guidance)
        session = Session(work)
        guider.sample(
            latent, latent, session, self.sigmas, disable_pbar=True, seed=self.params.seed
        )
        return session.results.pop()

    def flow(self, earlier: Tensor, later: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
        bound = setting.longest_side
        h, w = earlier.shape[-2:]
        needed = len(earlier) * flow_memory(self.flow_model, *bounded_size(h, w, bound))
        self.ready = None
        load_models([self.flow_model], needed)
        device = self.flow_model.load_device
        ways = self.neighbours.both_ways(earlier.to(device), later.to(device), bound)
        forward, backward = ways
        return forward, backward

    @torch.inference_mode()
    def decode(self, latents: Tensor, frames: Tensor, setting: Setting) -> Tensor:
        n, h, w = latents.shape[2:]
        wanted = n, h, w, setting
        key = *wanted, self.vae.first_stage_model.precision
        if key != self.ready:  # each call copies small weights and empties caches
            self.vae.load(*wanted)
            self.ready = key
        latents, network = latents.to(self.vae.device), self.vae.first_stage_model
        return decoded(network, latents, frames, self.params, setting, check_cancelled)

    def in_wider(self) -> AbstractContextManager[None] | None:
        network = self.vae.first_stage_model
        return None if network.wider is None else network.in_wider()

    def memory(self, stage: Stage, frames: int, h: int, w: int, *, least: bool = False) -> int:
        if stage == "decode":
            own = 0 if least else self.vae.patcher.model_size()
            return own + self.vae.memory_required(frames, h, w, spared=least)
        model: Any = self.model.model
        if least:
            return model.least_bytes(frames, h, w)
        shape = (self.params.halves, 4, frames, h, w)
        return int(model.memory_required(shape)) + self.model.model_size()

    def room(self) -> int:
        return device_room(self.device)

    def release(self) -> None:
        self.ready = None
        mm.soft_empty_cache()

    def ran_out(self, error: BaseException) -> bool:
        return ran_out(error)


class Session(comfy.samplers.Sampler, Generic[T]):
    """A sampler that lets ``work`` call the model, instead of running through the sigmas."""

    def __init__(self, work: Callable[[Predict], T]) -> None:
        self.work, self.results = work, list[T]()

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        options = extra_args["model_options"]
        tiled = tiles_on(options)

        def predict(latent: Tensor, step: int, low_res: Tensor, setting: Setting) -> Tensor:
            seeing = {**options, "model_function_wrapper": shown(low_res, setting, tiled)}
            x = latent.to(noise)
            sigma = sigmas[step] * x.new_ones([1])
            return model_wrap(x, sigma, **{**extra_args, "model_options": seeing}).to(latent)

        self.results.append(self.work(predict))
        return noise


def shown(low_res: Tensor, setting: Setting, tiled: TiledModel) -> Wrapper:
    """A ``model_function_wrapper`` that gives one pass its low-resolution frames and tiles.

    ``tiled`` holds the model's own tiles; those of ``setting`` replace them if they are smaller.
    """

    def wrapper(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
        frames = low_res.to(args["input"]).expand(len(args["input"]), -1, -1, -1, -1)
        args = {**args, "c": {**args["c"], "c_concat": frames}}
        return tiled.run(setting, apply_model, args)

    return wrapper


def file_or_tensors(
    path: str,
    loaded: tuple[int, int] | None,
    tensors: Mapping[str, Tensor],
    cache: str | os.PathLike[str],
) -> str:
    """The hash of a weight file, cached in the folder ``cache``; else that of its ``tensors``.

    The file must be known, and be the one that was ``loaded``, by its ``stamp``.
    """
    if path and os.path.isfile(path) and stamp(path) == loaded:
        return weights_hash(path, cache)
    return digest(tensors)


def unpatched(model: comfy.model_patcher.ModelPatcher) -> dict[str, Tensor]:
    """The U-Net's tensors as they were loaded: a run leaves patches of a LoRA in them."""
    network: Any = model.model.diffusion_model
    kept = {key: saved.weight for key, saved in model.backup.items()}
    return {
        name: kept.get(f"diffusion_model.{name}", tensor)
        for name, tensor in network.state_dict().items()
    }
