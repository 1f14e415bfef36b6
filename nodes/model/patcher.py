"""Networks given to ComfyUI's memory management: patchers, and weights under dynamic memory.

With dynamic memory (DynamicVRAM, ComfyUI's default on NVIDIA) layers are built without weights.
The patcher keeps the tensors in the precision of the file, and every layer casts its weights when
it is used. Without dynamic memory weights are held in the chosen precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import torch
from torch import Tensor, nn

from ...uav_core.devices import memory

# Ask ComfyUI for free memory, as it knows of all models. Layers that fit into it run whole.
memory.free = mm.get_free_memory


def new_patcher(
    model: Any, load_device: Any, offload_device: Any, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """ComfyUI's own patcher around ``model``: the dynamic one if it is on, else the plain one."""
    plain = comfy.model_patcher.ModelPatcher
    # Looked up now, not at import: ComfyUI swaps the class when dynamic memory is on.
    core = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
    return core(model, load_device=load_device, offload_device=offload_device)


def is_dynamic(patcher: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether weights stay where they were loaded and stream to the device (newer ComfyUI)."""
    return hasattr(patcher, "is_dynamic") and patcher.is_dynamic()


def give_weights(
    patcher: comfy.model_patcher.ModelPatcher,
    network: nn.Module,
    weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> None:
    """Load ``weights`` into ``network``, which is the patcher's model or a part of it.

    ``network`` was built in ``dtype`` and ``weights`` fit it (``checkpoints.check_keys``).
    """
    if is_dynamic(patcher):
        # Stores the dtypes that streamed weights are cast to.
        mm.archive_model_dtypes(network)
        network.load_state_dict(weights, assign=True)
        return
    network.load_state_dict(weights)
    # A layer that was built without weights now has the file's precision.
    for parameter in network.parameters():
        if parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
