"""A stream's state as a safetensors file that is there whole, or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...files import save_tensors
from .state import AGAIN, DamagedStateError, StreamState

_META, _CHECKSUM = "stream", "blake2b"


def save_state(path: str | os.PathLike[str], state: StreamState) -> None:
    """Write ``state.tensors`` and ``state.meta`` beside ``path`` and move them into place.

    A crash leaves the file that was there before. Raises OSError where the disk does.
    """
    path = Path(path)
    meta = json.dumps(state.meta, sort_keys=True)
    metadata = {_META: meta, _CHECKSUM: _checksum(meta, state.tensors)}
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    save_tensors(path, tensors, metadata)


def load_state(path: str | os.PathLike[str]) -> StreamState:
    """The state in a file, its checksum compared. Raises DamagedStateError."""
    path = Path(path)
    try:
        # Read whole: a mapped file could not be replaced by the next state everywhere.
        data = path.read_bytes()
    except OSError as error:
        raise DamagedStateError(f"{path} cannot be read: {error}. {AGAIN}") from error
    try:
        tensors = safetensors.torch.load(data)
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        text, checksum = metadata[_META], metadata[_CHECKSUM]
        meta: dict[str, Any] = json.loads(text)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DamagedStateError(
            f"{path} ({len(data)} bytes) is not the whole state of a stream ({error!r}). {AGAIN}"
        ) from error
    if _checksum(text, tensors) != checksum:
        raise DamagedStateError(f"{path} has changed since it was written. {AGAIN}")
    return StreamState(meta, tensors)


def _checksum(meta: str, tensors: Mapping[str, Tensor]) -> str:
    """Over all that is read back: a damaged bit anywhere gives another one."""
    digest = hashlib.blake2b(meta.encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
