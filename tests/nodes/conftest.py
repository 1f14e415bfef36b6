"""A ComfyUI inside the test process, and the pack imported into it as ComfyUI does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import save_file

from scripts.comfy_inside import import_pack


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A models folder with the tiny networks of the golden data, as files."""
    import tiny

    folder = tmp_path_factory.mktemp("models")
    own = folder / "upscale_a_video"
    own.mkdir()
    save_file(tiny.unet_weights(), own / "unet.safetensors")
    null_text = {"null_text_embedding": tiny.context()[0]}
    save_file({**tiny.unet_weights(), **null_text}, own / "unet_null.safetensors")
    for kind in ("vae_3d", "vae_video"):
        save_file(tiny.vae_weights(kind), own / f"{kind}.safetensors")
    return folder


@pytest.fixture(scope="session")
def pack(models) -> ModuleType:
    """The pack, imported as a package of its own next to a real ComfyUI on the CPU."""
    return import_pack(models)


@pytest.fixture
def nothing_loads(pack):
    """Fails if a model was brought to the device during the test."""
    import comfy.model_management as mm
    import graph

    mm.unload_all_models()
    yield
    assert graph.loaded() == []
