"""Imports ComfyUI and the pack into this process, without a server."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for programs started in another folder

from scripts.env.layout import comfyui_path, default_version, dynamic_memory  # noqa: E402

NAME = "uav_pack"


def import_pack(models: Path) -> ModuleType:
    """Import the pack as a separate package, as ComfyUI does; ``models`` is its models folder.

    ComfyUI runs on the CPU if there is no GPU.
    """
    comfyui = comfyui_path(default_version())
    sys.path.insert(0, str(comfyui))
    import comfy.cli_args

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    import folder_paths

    folder_paths.models_dir = str(models)
    if folder := dynamic_memory(comfyui):
        runpy.run_path(str(folder / "__init__.py"))
    spec = importlib.util.spec_from_file_location(
        NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module
