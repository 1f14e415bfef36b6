"""The networks of a long video, run by ComfyUI."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import comfy.model_management as mm
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor

from ...uav_core.flow.bounded import both_ways_bounded, bounded_size
from ...uav_core.flow.estimate import NeighbourFlow
from ...uav_core.jobs import weights_hash
from ...uav_core.longvideo import LongVideoParams
from ...uav_core.longvideo.fallback import Setting
from ...uav_core.models.vae import LATENT_SCALE
from ...uav_core.sampling import schedule
from ...uav_core.sampling.pipeline import decode_group
from ...uav_core.sampling.stream import DDIM, DenoisedDDIM
from ...uav_core.sampling.tiles import square_tiles
from ..base.runtime import check_cancelled, load_models
from ..model.vae import check_vae
from ..sampling.caches import without_caches
from ..sampling.condition import Conditioning, condition
from ..sampling.guidance import RangedGuider
from ..sampling.propagate import check_flow_model, flow_memory
from ..sampling.sample import check_conditioning, check_model
from ..sampling.tiles import TiledModel, Wrapper

T = TypeVar("T")


class ComfyEngine:
    """``uav_core.longvideo.Engine`` on MODEL, VAE, CONDITIONING and OPTICAL_FLOW.

    The model is sampled through ComfyUI's guider, so that LoRA, hooks and wrappers work and its
    memory is budgeted as ever; what one pass sees of the frames is put in place by a wrapper.
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
        """Raises InputError for parts that do not fit each other, before anything is loaded."""
        check_vae(vae)
        check_flow_model(flow_model)
        self.model, self.vae, self.flow_model, self.params = model, vae, flow_model, params
        self.neighbours = NeighbourFlow(flow_model.model, params.flow_iterations)
        self.texts = positive, negative
        self._check()
        self.sigmas = schedule.sigmas(params.steps)
        self.ddim: DDIM = DenoisedDDIM(self.sigmas)
        self._shape: tuple[int, ...] | None = None
        self._denoise: Callable[[Tensor, int], Tensor] | None = None
        self._low_res: Tensor | None = None
        self._setting = Setting()

    def _check(self) -> None:
        unet, small = check_model(self.model), torch.zeros((1, 3, 1, 16, 16))
        for name, text in zip(("positive", "negative"), self.texts, strict=True):
            check_conditioning(name, condition(text, small, 0), unet)

    def weights(self, cache: str | os.PathLike[str]) -> Mapping[str, str]:
        made = getattr(self.model, "cached_patcher_init", None)
        unet = str(made[1][0]) if made else ""
        inner = self.model.model
        precision = self.vae.vae_dtype
        return {
            "unet": file_or_tensors(unet, inner.diffusion_model, cache),
            "unet dtype": digest(str(inner.get_dtype())),
            "patches": digest(self.model.patches),
            "vae": file_or_tensors(self.vae.path, self.vae.first_stage_model, cache),
            "flow": file_or_tensors("", self.flow_model.model, cache),
            "positive": digest(self.texts[0]),
            "negative": digest(self.texts[1]),
            "device": digest(str(mm.get_torch_device().type)),
            # Left out for fp32, so that jobs begun before there was a choice go on.
            **({} if precision == torch.float32 else {"vae dtype": digest(str(precision))}),
        }

    def prepare(self, frames: int, h: int, w: int) -> None:
        self._shape = (1, 4, frames, h, w)

    def sampling(self, work: Callable[[], T]) -> T:
        assert self._shape is not None  # prepare comes first
        _, _, t, h, w = self._shape
        blank = torch.zeros((1, 3, t, h, w))
        level = self.params.noise_level
        guider = RangedGuider(self._patched())
        guider.set_conds(*(condition(text, blank, level) for text in self.texts))
        guider.set_cfg(self.params.guidance)
        guider.set_range(self.params.guided, self.sigmas)
        session: Session[T] = Session(self, work)
        nothing = torch.zeros(self._shape)
        guider.sample(
            nothing, nothing, session, self.sigmas, disable_pbar=True, seed=self.params.seed
        )
        return session.results.pop()

    def predict(self, latent: Tensor, step: int, low_res: Tensor, setting: Setting) -> Tensor:
        assert self._denoise is not None  # called within sampling
        self._low_res, self._setting = low_res, setting
        return self._denoise(latent, step).float().cpu()

    def flow(self, earlier: Tensor, later: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
        bound = setting.longest_side
        h, w = earlier.shape[-2:]
        load_models([self.flow_model], flow_memory(self.flow_model, *bounded_size(h, w, bound)))
        forward, backward = both_ways_bounded(self.neighbours, earlier, later, bound)
        return forward.cpu(), backward.cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor, frames: Tensor, setting: Setting) -> Tensor:
        self.vae.load(*latents.shape[2:], setting.tile)
        z = latents.to(self.vae.device, torch.float32) / LATENT_SCALE
        return decode_group(
            self.vae.first_stage_model,
            z,
            frames.to(z),
            self.params.lr_guidance,
            self.params.color,
            square_tiles(*z.shape[-2:], setting.tile, setting.overlap),
            check_cancelled,
        ).cpu()

    def memory(self, frames: int, group: int, h: int, w: int) -> tuple[int, int]:
        shape = (self.params.halves, 4, frames, h, w)
        patcher = self.vae.patcher
        return (
            int(self.model.model.memory_required(shape)) + self.model.model_size(),
            self.vae.memory_required(group, h, w) + patcher.model_size(),
        )

    def device_name(self) -> str:
        return "CPU" if mm.get_torch_device().type == "cpu" else "GPU"

    def release(self) -> None:
        mm.soft_empty_cache()

    def ran_out(self, error: BaseException) -> bool:
        judge = getattr(mm, "is_oom", None)  # newer ComfyUI
        return judge is not None and bool(judge(error))

    # --- inside ----------------------------------------------------------------------------

    def _patched(self) -> comfy.model_patcher.ModelPatcher:
        model = self.model.clone()
        options: dict[str, Any] = model.model_options
        options.pop("context_handler", None)  # segments are ours here
        without_caches(model)
        around: Wrapper | None = options.get("model_function_wrapper")

        def wrapper(apply_model: Callable[..., Tensor], args: dict[str, Any]) -> Tensor:
            x = args["input"]
            assert self._low_res is not None
            low_res = self._low_res.to(x).expand(x.shape[0], -1, -1, -1, -1)
            args = {**args, "c": {**args["c"], "c_concat": low_res}}
            if self._setting.tile is not None:
                tiled = TiledModel(self._setting.tile, self._setting.overlap or 0, around)
                return tiled(apply_model, args)
            if around is not None:
                return around(apply_model, args)
            return apply_model(x, args["timestep"], **args["c"])

        model.set_model_unet_function_wrapper(cast(Any, wrapper))
        return model


class Session(comfy.samplers.Sampler):
    """A sampler that lets the engine's work call the model, instead of walking the sigmas."""

    def __init__(self, engine: ComfyEngine, work: Callable[[], Any]) -> None:
        self.engine, self.work, self.results = engine, work, []

    def __class_getitem__(cls, _: Any) -> type[Session]:
        return cls

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
        def denoise(latent: Tensor, step: int) -> Tensor:
            x = latent.to(noise)
            return model_wrap(x, sigmas[step] * x.new_ones([1]), **extra_args)

        self.engine._denoise = denoise
        try:
            self.results.append(self.work())
        finally:
            self.engine._denoise = None
        return noise


def digest(value: Any) -> str:
    """A hash in hex of nested plain values and tensors."""
    hasher = hashlib.blake2b(digest_size=16)

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            flat = item.detach().cpu().contiguous().flatten()
            hasher.update(f"{item.dtype}{tuple(item.shape)}".encode())
            hasher.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping):
            for key in sorted(item, key=str):
                hasher.update(str(key).encode())
                add(item[key])
        elif isinstance(item, list | tuple):
            hasher.update(f"[{len(item)}".encode())
            for part in item:
                add(part)
        elif hasattr(item, "weights"):  # ComfyUI's adapters of LoRA and its kin
            hasher.update(type(item).__name__.encode())
            add(item.weights)
        elif isinstance(item, str | bytes | int | float | bool | None):
            hasher.update(repr(item).encode())
        else:
            hasher.update(type(item).__qualname__.encode())

    add(value)
    return hasher.hexdigest()


def file_or_tensors(path: str, module: torch.nn.Module, cache: str | os.PathLike[str]) -> str:
    """The hash of a weight file, once read kept in the folder ``cache``; else of the tensors."""
    if path and os.path.isfile(path):
        return weights_hash(path, cache)
    return digest({name: value for name, value in module.state_dict().items()})
