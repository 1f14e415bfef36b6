"""Digests of what nodes have set on models and texts, by which a job is known again."""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Mapping
from enum import Enum
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import comfy.hooks
import comfy.model_patcher
import comfy.patcher_extension
import torch
from torch import Tensor

from ..sampling.tiles import tiles_on


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
    met: dict[int, tuple[int, Any]] = {}
    """Numbered objects and functions, which are added once each: they may refer to each other."""

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
            hasher.update(f"the {met[id(item)][0]}th".encode())
        else:
            kind = type(item).__qualname__
            if "weights" in vars_of(item) and not isinstance(item, comfy.hooks.Hook):
                hasher.update(
                    type(item).__name__.encode()
                )  # ComfyUI's adapters of LoRA and similar
                add(item.weights)
                return
            met[id(item)] = len(met), item
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
