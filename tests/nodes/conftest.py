"""A ComfyUI inside the test process, and the pack imported into it as ComfyUI does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file

from scripts.comfy_inside import import_pack


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A models folder with the quickest networks, as files."""
    import tiny

    folder = tmp_path_factory.mktemp("models")
    own = folder / "upscale_a_video"
    own.mkdir()
    unet = tiny.unet_weights(tiny.QUICK_UNET)
    save_file(unet, own / "unet.safetensors")
    save_file({**unet, "null_text_embedding": tiny.context()[0]}, own / "unet_null.safetensors")
    for kind, params in tiny.QUICK_VAES.items():
        save_file(tiny.vae_weights(kind, params), own / f"{kind}.safetensors")
    return folder


@pytest.fixture(autouse=True)
def inference_mode():
    """As ComfyUI runs nodes: with gradients the networks take other ways."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def pack(models) -> ModuleType:
    """The pack, imported as a package of its own next to a real ComfyUI on the CPU."""
    return import_pack(models)


@pytest.fixture(scope="module")
def unet(pack, models):
    """The MODEL of the quick U-Net, one for the tests of a file."""
    return pack.nodes.model.unet.load_unet(str(models / "upscale_a_video" / "unet.safetensors"))


@pytest.fixture(scope="module")
def golden_unet(pack, tmp_path_factory):
    """The MODEL of the U-Net of the golden data, likewise."""
    import tiny

    path = tmp_path_factory.mktemp("golden") / "unet.safetensors"
    save_file(tiny.unet_weights(), path)
    return pack.nodes.model.unet.load_unet(str(path))


@pytest.fixture(scope="module")
def vae(pack, models):
    """The quick ``vae_video``, likewise."""
    return pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / "vae_video.safetensors"))


@pytest.fixture
def asked(pack, monkeypatch):
    """The bytes that ComfyUI is asked to keep free, at each loading of models."""
    import comfy.model_management as mm

    asked, load = [], mm.load_models_gpu

    def recorded(*args, **kwargs):
        asked.append(kwargs["memory_required"])
        return load(*args, **kwargs)

    monkeypatch.setattr(mm, "load_models_gpu", recorded)
    return asked


@pytest.fixture
def nothing_loads(pack):
    """Fails if a model was brought to the device during the test."""
    import comfy.model_management as mm
    import graph

    mm.unload_all_models()
    yield
    assert graph.loaded() == []
