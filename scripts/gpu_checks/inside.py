"""Runs ComfyUI's `main.py` in this process, up to the start of the server.

It decides there whether DynamicVRAM is on. Do not import torch before, as `main.py` sets up the
allocator first.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts.server.comfy_server import SHIM, has_accelerator, lay_folders

BY_HAND = "switched on by hand, as far as a CPU goes"


def start_comfyui(comfyui: Path, base: Path) -> ModuleType:
    """Start ComfyUI with its folders below ``base``. Returns the pack, imported into it."""
    lay_folders(base, {SHIM.name: SHIM})
    sys.path.insert(0, str(comfyui))
    # Attention as on a GPU, as compilers cannot trace the one that ComfyUI uses on a CPU.
    on_cpu = ["--cpu", "--use-pytorch-cross-attention"]
    cpu = [] if has_accelerator(Path(sys.executable)) else on_cpu
    sys.argv = ["main.py", "--base-directory", str(base), *cpu]
    importlib.import_module("main")
    if cpu:
        # ComfyUI has DynamicVRAM off on a CPU: enable it as far as a CPU allows.
        os.environ["UAV_DYNAMIC_VRAM"] = "1"
    from scripts.comfy_inside import import_pack

    return import_pack(base / "models")


def dynamic_vram() -> str:
    """State of DynamicVRAM in this process, in words."""
    patchers: Any = importlib.import_module("comfy.model_patcher")
    if not hasattr(patchers, "ModelPatcherDynamic"):
        return "not in this ComfyUI"
    memory: Any = importlib.import_module("comfy.memory_management")
    if not memory.aimdo_enabled or patchers.CoreModelPatcher is not patchers.ModelPatcherDynamic:
        return "off"
    return BY_HAND if importlib.import_module("comfy.cli_args").args.cpu else "on"
