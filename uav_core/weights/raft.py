"""RAFT's weights: from the names of its authors to torchvision's."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import CheckpointMismatchError

_RAFT_RENAMES = (
    (re.compile(r"^fnet\."), "feature_encoder."),
    (re.compile(r"^cnet\."), "context_encoder."),
    (re.compile(r"^(\w+_encoder)\.conv1\."), r"\1.convnormrelu.0."),
    (re.compile(r"^(\w+_encoder)\.norm1\."), r"\1.convnormrelu.1."),
    (re.compile(r"^(\w+_encoder)\.conv2\."), r"\1.conv."),
    (re.compile(r"(\.layer\d\.\d)\.conv(\d)\."), r"\1.convnormrelu\2.0."),
    (re.compile(r"(\.layer\d\.\d)\.norm3\."), r"\1.downsample.1."),
    (re.compile(r"(\.layer\d\.\d)\.norm(\d)\."), r"\1.convnormrelu\2.1."),
    (re.compile(r"^update_block\.encoder\.conv\."), "update_block.motion_encoder.conv.0."),
    (re.compile(r"^update_block\.encoder\.convc(\d)\."),
     r"update_block.motion_encoder.convcorr\1.0."),
    (re.compile(r"^update_block\.encoder\.convf(\d)\."),
     r"update_block.motion_encoder.convflow\1.0."),
    (re.compile(r"^update_block\.gru\.conv([zrq])(\d)\."),
     r"update_block.recurrent_block.convgru\2.conv\1."),
    (re.compile(r"^update_block\.mask\.0\."), "mask_predictor.convrelu.0."),
    (re.compile(r"^update_block\.mask\.2\."), "mask_predictor.conv."),
)  # fmt: skip


def raft_to_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`raft-things` weights (without `module.`) under torchvision's `raft_large` names.

    The original registers a block's shortcut norm twice, as `norm3` and as `downsample.1`. If a
    file has both, `downsample.1` is used, as it takes effect in the original too. Batch counters
    missing from old files are added. Raises CheckpointMismatchError for two keys of one layer.
    """
    result: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in state_dict.items():
        if ".norm3." in key and key.replace(".norm3.", ".downsample.1.") in state_dict:
            continue
        name = key
        for pattern, replacement in _RAFT_RENAMES:
            name = pattern.sub(replacement, name)
        if name in origin:
            raise CheckpointMismatchError(
                f"RAFT weights hold both '{origin[name]}' and '{key}', which are names of the "
                "same layer: expected one layout, raft-things or torchvision. Use a file with "
                "only one layout."
            )
        result[name], origin[name] = tensor, key
    for key in list(result):
        if key.endswith(".running_var"):
            counter = key.removesuffix("running_var") + "num_batches_tracked"
            result.setdefault(counter, torch.zeros((), dtype=torch.int64))
    return result
