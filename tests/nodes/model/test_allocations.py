"""Nothing that a network allocates while it runs is there when it has run, but its result.

ComfyUI 0.35 and later can record what a model allocates between two marks and give the same
addresses out again: a tensor made in between and kept for later is written over, or ends the
process. Such a tensor would have to be made within ``comfy.model_prefetch.pause_malloc_graph``;
the pack makes none.
"""

from __future__ import annotations

import importlib
from typing import Any

import graph
import pytest
import torch
from generated import det
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = 10


def storages(values: Any) -> dict[int, Tensor]:
    found = [x for x in tree_leaves(values) if isinstance(x, Tensor)]
    return {x.untyped_storage()._cdata: x for x in found}


class Allocated(TorchDispatchMode):
    """Remembers every memory that an operation makes, without holding it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[StorageWeakRef, str]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = storages((args, kwargs))
        for key, tensor in storages(out).items():
            if key not in given:
                text = f"{func} {tuple(tensor.shape)}"
                self.made.append((StorageWeakRef(tensor.untyped_storage()), text))
        return out

    def alive(self, result: Any) -> list[str]:
        """What is still there besides ``result``."""
        returned = storages(result)
        return [text for ref, text in self.made if not ref.expired() and ref.cdata not in returned]


class Watch:
    """Put around a network's function: what outlived each of its calls, and how much was made."""

    def __init__(self) -> None:
        self.calls = self.made = 0
        self.kept: list[str] = []

    def around(self, function: Any) -> Any:
        def watched(*args: Any, **kwargs: Any) -> Any:
            with Allocated() as allocated:
                out = function(*args, **kwargs)
            self.calls += 1
            self.made += len(allocated.made)
            self.kept += allocated.alive(out)
            return out

        return watched


@pytest.fixture
def unet(pack, models):
    return pack.nodes.model.unet.load_unet(str(models / "upscale_a_video" / "unet.safetensors"))


@pytest.fixture
def watch(pack, unet, monkeypatch) -> Watch:
    """Watches every pass of the U-Net below all wrappers."""
    watch = Watch()
    inner = unet.model.diffusion_model
    monkeypatch.setattr(inner, "_evaluate", watch.around(inner._evaluate))
    return watch


@pytest.fixture(params=[False, True], ids=["whole", "stripes"])
def striped(pack, monkeypatch, request):
    if request.param:
        monkeypatch.setattr(pack.uav_core.devices.cpu, "WHOLE_UP_TO", 0)


def cached(unet: Any, name: str) -> Any:
    node = getattr(importlib.import_module("comfy_extras.nodes_easycache"), f"{name}Node")
    return node.execute(unet, 0.2, 0.0, 1.0, False).result[0]


@pytest.mark.slow
def test_a_run_keeps_nothing_of_a_pass(pack, unet, watch, striped, monkeypatch):
    import latent_preview

    args = latent_preview.args
    monkeypatch.setattr(args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)
    flow = pack.nodes.loaders.load.flow_patcher(pack.uav_core.flow.builtin.BuiltinFlow())
    images = graph.frames(T)
    plan = pack.nodes.sampling.propagate.Propagation.execute(
        flow, images, "1", 0.5, 0.001, 0.05
    ).result[0]
    model = cached(pack.nodes.sampling.tiles.with_tiles(unet, 16, 8), "EasyCache")
    graph.sample(pack, model, images, propagation=plan)
    assert watch.calls > 4 and watch.made > 100 * watch.calls
    assert not watch.kept


def test_nor_does_lazycache_or_another_sampler(pack, unet, watch):
    import comfy.samplers

    positive, negative, latent = graph.conditioned(pack, graph.frames(3))
    sampler = comfy.samplers.sampler_object("euler")
    guider = comfy.samplers.CFGGuider(cached(unet, "LazyCache"))
    guider.set_conds(positive, negative)
    guider.set_cfg(3.0)
    samples = latent["samples"]
    sigmas = pack.uav_core.sampling.schedule.sigmas(2)
    guider.sample(torch.randn_like(samples), samples, sampler, sigmas, seed=1, disable_pbar=True)
    assert watch.calls and not watch.kept


@pytest.mark.parametrize("kind", ["vae_3d", "vae_video"])
def test_the_vae_keeps_nothing(pack, models, striped, monkeypatch, kind):
    vae = pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / f"{kind}.safetensors"))
    watch, network = Watch(), vae.first_stage_model
    for name in ("decode", "encode"):
        monkeypatch.setattr(network, name, watch.around(getattr(network, name)))
    images = graph.frames(4)
    samples = {"samples": det("allocations/z", (1, 4, 4, graph.H, graph.W))}
    node = pack.nodes.sampling.decode.VAEDecode
    node.execute(samples, vae, images, 1.0, 3, "wavelet", tile=16, tile_overlap=8)
    vae.encode(images)
    assert watch.calls > 4 and watch.made > 20 * watch.calls
    assert not watch.kept


def test_what_is_kept_is_seen(pack, unet, watch, monkeypatch):
    kept, attend = [], pack.nodes.model.unet.optimized_attention

    def keeping(q: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kept.append(q)
        return attend(q, *args, **kwargs)

    monkeypatch.setattr(pack.nodes.model.unet, "optimized_attention", keeping)
    graph.sample(pack, unet, graph.frames(2), steps=1)
    assert kept and watch.kept
