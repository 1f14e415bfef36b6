"""Weights and inputs generated from names, so that the golden file need not store them.

The golden data was made by the same rules: every tensor is standard-normal noise seeded with the
CRC-32 of its name, then scaled so that a network of any depth stays finite and every weight has an
effect. If a rule changes, all golden cases fail.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

GOLDEN_FOLDER = Path(__file__).parents[1] / "golden"

# The rotary embedding's table: 16 frequencies for the first 32 dims of a head, theta 10000.
ROTARY_FREQS = 1.0 / 10000 ** (torch.arange(0, 32, 2).float() / 32)


def det(name: str, shape: Sequence[int]) -> Tensor:
    """Standard-normal fp32 noise of `shape`, the same for the same `name` everywhere."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    return torch.from_numpy(np.asarray(generator.standard_normal(tuple(shape), dtype=np.float32)))


def _weight(name: str, key: str, shape: tuple[int, ...]) -> Tensor:
    if not shape:  # `num_batches_tracked`: a counter that eval mode does not use
        return torch.zeros((), dtype=torch.int64)
    noise = det(name, shape)
    if key.endswith("running_var"):
        return noise.abs() + 0.5
    if len(shape) == 1:
        return 1 + 0.1 * noise if key.endswith("weight") else 0.1 * noise
    if key.endswith(("embedding.weight", "relative_attention_bias.weight")):
        return 0.5 * noise
    return noise / math.sqrt(math.prod(shape[1:]))


@torch.inference_mode(False)  # callers keep the tensors for tests of any mode
def generate(
    prefix: str,
    shapes: Mapping[str, Sequence[int]],
    freqs: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """A full state dict for `shapes`, in the same order of keys.

    `prefix` ("unet.", "vae.", "raft.") is put before each key only for the seed. Keys ending in
    `freqs` are tables, not weights: `freqs[key]` if given, else the rotary table.
    """
    state: dict[str, Tensor] = {}
    for key, shape in shapes.items():
        if key.endswith("freqs"):
            state[key] = (freqs or {}).get(key, ROTARY_FREQS).clone()
        else:
            state[key] = _weight(prefix + key, key, tuple(shape))
    return state


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes by key of a module's state dict; the module may be on the meta device."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def key_shapes(name: str) -> dict[str, list[int]]:
    """The released layout `name`: "unet", "vae_3d", "vae_video" or "raft_things"."""
    return json.loads((GOLDEN_FOLDER / "keys" / f"{name}.json").read_text())


def golden() -> dict[str, Tensor]:
    """Every stored golden tensor by name (1.5 MB)."""
    return load_file(GOLDEN_FOLDER / "golden.safetensors")
