"""A custom node for test servers that enables ComfyUI's dynamic memory as far as a CPU allows.

ComfyUI itself enables it only on NVIDIA GPUs. Layers are then built without weights. The patcher
for a CPU stays the plain one, and files are read by safetensors, as comfy-aimdo's own reader needs
CUDA.
"""

from typing import Any

import comfy.memory_management
import comfy.model_patcher
import comfy.utils
from safetensors import safe_open

comfy.memory_management.aimdo_enabled = True
comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic


def load_safetensors(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


comfy.utils.load_safetensors = load_safetensors

NODE_CLASS_MAPPINGS: dict[str, type] = {}
