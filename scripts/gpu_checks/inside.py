"""ComfyUI inside this process, as far as its own `main.py` goes before it starts the server.

That is where DynamicVRAM is switched on, if it is. Import nothing that imports torch before:
`main.py` sets up the allocator first.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from comfy_server import SHIM, has_accelerator, lay_folders


def start_comfyui(comfyui: Path, base: Path) -> ModuleType:
    """ComfyUI with its folders below ``base``; the pack, imported into it."""
    lay_folders(base, {SHIM.name: SHIM})
    sys.path.insert(0, str(comfyui))
    cpu = [] if has_accelerator(Path(sys.executable)) else ["--cpu"]
    sys.argv = ["main.py", "--base-directory", str(base), *cpu]
    importlib.import_module("main")
    if cpu:
        pretend_dynamic()
    from comfy_inside import import_pack

    return import_pack(base / "models")


def pretend_dynamic() -> None:
    """On a CPU, which ComfyUI leaves DynamicVRAM off for: its switches, by which layers are built.

    ComfyUI's dynamic patcher gives a plain one for a CPU, so that is as far as it goes.
    """
    memory, patchers = dynamic_modules()
    if memory is not None:
        memory.aimdo_enabled = True
        patchers.CoreModelPatcher = patchers.ModelPatcherDynamic


def dynamic_modules() -> tuple[Any, Any]:
    """The modules that say whether DynamicVRAM is on; None twice for a ComfyUI without it."""
    patchers: Any = importlib.import_module("comfy.model_patcher")
    if not hasattr(patchers, "ModelPatcherDynamic"):
        return None, None
    return importlib.import_module("comfy.memory_management"), patchers


def dynamic_vram() -> str:
    """Whether DynamicVRAM is on in this process, in words."""
    memory, patchers = dynamic_modules()
    if memory is None:
        return "not in this ComfyUI"
    on = memory.aimdo_enabled and patchers.CoreModelPatcher is patchers.ModelPatcherDynamic
    if not on:
        return "off"
    cpu = importlib.import_module("comfy.cli_args").args.cpu
    return "switches set by hand, as far as a CPU goes" if cpu else "on"
