"""A ComfyUI inside the test process, and the pack imported into it as ComfyUI does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from layout import comfyui_path, default_version
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "core"))


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
    sys.path.insert(0, str(comfyui_path(default_version())))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    import folder_paths

    folder_paths.models_dir = str(models)
    spec = importlib.util.spec_from_file_location(
        "uav_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["uav_pack"] = module
    spec.loader.exec_module(module)
    return module
