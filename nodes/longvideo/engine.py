"""The networks of a long video, run by ComfyUI."""

from __future__ import annotations

import dis
import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from enum import Enum
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Generic, TypeVar

import comfy.hooks
import comfy.model_management as mm
import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers
import torch
from torch import Tensor

from ...uav_core.flow.estimate import NeighbourFlow, bounded_size
from ...uav_core.longvideo import LongVideoParams
from ...uav_core.longvideo.engine import Predict, Stage, decoded
from ...uav_core.sampling import schedule
from ...uav_core.sampling.ladder import Setting
from ...uav_core.sampling.stream import DDIM, DenoisedDDIM
from ...uav_core.weights.hashes import weights_hash
from ..base.runtime import check_cancelled, device_room, load_models, ran_out
from ..model.vae import check_vae
from ..sampling.caches import without_caches
from ..sampling.condition import Conditioning, condition
from ..sampling.guidance import RangedGuider
from ..sampling.propagate import flow_memory
from ..sampling.sample import check_conditioning, check_model
from ..sampling.tiles import TiledModel, Wrapper, tiles_on

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
        inner = self.model.model
        precision = self.vae.vae_dtype
        return {
            "unet": file_or_tensors(self.path, inner.diffusion_model, cache),
            "unet dtype": digest(str(inner.get_dtype())),
            "patches": digest(self.model.patches),
            "vae": file_or_tensors(self.vae.path, self.vae.first_stage_model, cache),
            "flow": file_or_tensors("", self.flow_model.model, cache),
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


def changes(model: comfy.model_patcher.ModelPatcher) -> dict[str, Any]:
    """What nodes have set on a MODEL besides patches of its weights, by name, without the empty.

    Left out are wrappers that only ask for memory.
    """
    options: dict[str, Any] = dict(model.model_options)
    tiled = tiles_on(options)
    own = [] if tiled.tile is None else [tiled.tile, tiled.overlap]
    options["model_function_wrapper"] = [*own, *filter(None, [tiled.around])]
    asking = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
    found = {
        "model options": options,
        "object patches": model.object_patches,
        "injections": model.injections,
        "wrappers": {kind: by_key for kind, by_key in model.wrappers.items() if kind != asking},
    }
    return filled(found)


def filled(value: Any) -> Any:
    """Nested mappings without what is empty, None or False."""
    if not isinstance(value, Mapping):
        return value
    parts = {key: filled(part) for key, part in value.items()}
    return {
        key: part
        for key, part in parts.items()
        if not (part is None or part is False or (isinstance(part, Mapping | list) and not part))
    }


def digest(value: Any) -> str:
    """A hex digest of nested values, tensors, functions and objects.

    It must be the same after a restart, and after a run that has used the objects. So of an object
    its class and public attributes count, of a function its name and the values that it holds and
    does not change, of a network its buffers, and of a model only its class.
    """
    hasher = hashlib.blake2b(digest_size=16)
    inside: set[int] = set()
    """Containers that are being added, which may contain themselves."""
    met: dict[int, Any] = {}
    """Objects and functions that were added, once each, as they may refer to each other."""

    def add(item: Any) -> None:
        if isinstance(item, Tensor):
            hasher.update(f"{item.dtype}{tuple(item.shape)}".encode())
            if not item.is_meta:
                flat = item.detach().cpu().contiguous().flatten()
                hasher.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(item, Mapping | list | tuple):
            if id(item) in inside:
                return
            inside.add(id(item))
            if isinstance(item, Mapping):
                for key in sorted(item, key=named):
                    hasher.update(named(key).encode())
                    add(item[key])
            else:
                hasher.update(f"[{len(item)}".encode())
                for part in item:
                    add(part)
            inside.discard(id(item))
        elif isinstance(item, str | bytes | int | float | bool | None):
            hasher.update(repr(item).encode())
        elif isinstance(item, torch.dtype | torch.device | Enum):
            hasher.update(str(item).encode())
        elif isinstance(item, ModuleType | type):
            hasher.update(item.__name__.encode())
        elif id(item) in met:
            hasher.update(f"the {list(met).index(id(item))}th".encode())
        else:
            kind = type(item).__qualname__
            if "weights" in vars_of(item) and not isinstance(item, comfy.hooks.Hook):
                hasher.update(
                    type(item).__name__.encode()
                )  # ComfyUI's adapters of LoRA and similar
                add(item.weights)
                return
            met[id(item)] = item
            name = getattr(item, "__qualname__", kind)
            hasher.update((name if isinstance(name, str) else kind).encode())
            add(contents(item))

    add(value)
    return hasher.hexdigest()


def named(key: Any) -> str:
    """A key of a mapping as a text that does not depend on the process."""
    plain = isinstance(key, str | bytes | int | float | bool | None | tuple | Enum)
    return str(key) if plain else type(key).__qualname__


def contents(item: Any) -> Any:
    """What of an object or a function counts for ``digest`` besides its class or name."""
    if isinstance(item, partial):
        return [item.func, item.args, item.keywords]
    if isinstance(item, MethodType):
        return [item.__func__, item.__self__]
    if isinstance(item, FunctionType):
        return [item.__defaults__, item.__kwdefaults__, held_by(item)]
    if isinstance(item, comfy.hooks.WeightHook):
        frames = [(k.strength, k.start_percent) for k in item.hook_keyframe.keyframes]
        return [item._strength_model, item._strength_clip, item.weights, frames]
    if isinstance(item, comfy.model_patcher.ModelPatcher):
        return []
    if isinstance(item, torch.nn.Module):
        bases = [base.__qualname__ for base in type(item).__mro__]
        return {"bases": bases, **dict(item.named_buffers())}
    if type(item).__name__ == "BypassInjectionManager":
        return item.hooks
    if type(item).__name__ == "BypassForwardHook":
        # A run brings the LoRA's weights to the dtype of the layer, for good.
        dtype = getattr(getattr(item.module, "weight", None), "dtype", None)
        own = [dtype if dtype in HALF_OR_FULL else None, item.adapter.weights]
        return [type(item.adapter).__qualname__, item.multiplier, *cast_to(*own)]
    return {k: v for k, v in vars_of(item).items() if not k.startswith("_")}


HALF_OR_FULL = (torch.float32, torch.float16, torch.bfloat16)


def cast_to(dtype: torch.dtype | None, weights: Any) -> list[Any]:
    """``weights``, of which tensors of floating-point numbers are in ``dtype``, if it is given."""
    return [
        w.to(dtype) if dtype and isinstance(w, Tensor) and w.is_floating_point() else w
        for w in weights
    ]


def held_by(function: FunctionType) -> list[Any]:
    """The values from around a function, without those that it changes itself, run by run."""
    changed = rebound(function.__code__)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [c.cell_contents for name, c in cells if name not in changed and c != CellType()]


def rebound(code: CodeType) -> set[str]:
    """Names from around that ``code``, or a function in it, gives new values (``nonlocal``)."""
    found = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_DEREF"}
    inner = (rebound(const) for const in code.co_consts if isinstance(const, CodeType))
    return found.union(*inner)


def vars_of(item: Any) -> Mapping[str, Any]:
    """The attributes that an object itself has."""
    found = getattr(item, "__dict__", None)
    return found if isinstance(found, dict) else {}


def file_or_tensors(path: str, module: torch.nn.Module, cache: str | os.PathLike[str]) -> str:
    """The hash of a weight file, cached in the folder ``cache``; without a file, of the tensors."""
    if path and os.path.isfile(path):
        return weights_hash(path, cache)
    return digest({name: value for name, value in module.state_dict().items()})
