"""Reads weight files by their content, not by their name.

A `.bin`, `.pth`, `.pt` or `.ckpt` is a pickle, and unpickling can run any code in the file. Only
PyTorch's weights-only reader is used here: it rebuilds tensors and plain containers and refuses
everything else before anything runs.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UnreadableCheckpointError, UnsafeCheckpointError

AGAIN = "Download or copy the file again and compare its size with the source's."

MOST_HEADER = 100_000_000
"""Most bytes of a header, which is safetensors' own limit."""

DAMAGED_ZIP = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError)
"""What `zipfile` raises for a damaged archive whose entries are not compressed."""

# Starts of files that are often saved in place of weights.
_STRANGERS = (
    (rb"version https://git-lfs", "a git-LFS pointer, not the weights", "Run git lfs pull."),
    (rb"\s*<(!doctype|html|\?xml|head)", "a web page saved as a weight file", ""),
    (rb'\s*\{\s*("|\})', "JSON text, not weights", ""),
    (rb"GGUF", "a GGUF file", "Use the .safetensors or .bin form of the weights."),
    (rb"\x1f\x8b", "a gzip archive", "Unpack it and give the file inside."),
    (rb"7z\xbc\xaf|Rar!", "an archive", "Unpack it and give the file inside."),
)


def stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size and modification time of a file: if they differ, it was changed. Raises OSError."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def read_state_dict(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a weight file on the CPU, and its safetensors metadata (else {}).

    The content tells the format: safetensors, PyTorch's zip (memory-mapped) or PyTorch's older
    pickle. Wrappers (`state_dict`, `ema`, ...) are opened; names are as stored.
    Raises UnreadableCheckpointError (missing, empty, a folder, truncated, not weights) and
    UnsafeCheckpointError (a pickle of more than plain tensors; it is never run).
    """
    path = Path(path)
    head = _head(path)
    if _is_safetensors(head):
        return _read_safetensors(path)
    if head.startswith(b"PK\x03\x04"):
        return _tensors(path, _read_torch_zip(path)), {}
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 2:
        return _tensors(path, _torch_load(path, mmap=False)), {}
    for pattern, what, advice in _STRANGERS:
        if re.match(pattern, head, re.IGNORECASE):
            raise UnreadableCheckpointError(f"{path} is {what}. {advice or AGAIN}")
    asked_for = _first_global(path)
    if asked_for:
        raise _unsafe(path, f"it asks for {asked_for}")
    raise UnreadableCheckpointError(
        f"{path} ({path.stat().st_size} bytes) is neither a safetensors nor a PyTorch file, or it "
        f"is incomplete. {AGAIN}"
    )


def open_wrappers(obj: object) -> dict[str, Tensor]:
    """The tensors inside `obj` by name; {} if there are none.

    Opens the wrappers that training scripts put around weights, averaged weights (EMA) first, and
    leaves out everything that is not a named tensor (epoch, optimizer state).
    """
    if not isinstance(obj, Mapping):
        return {}
    for wrapper in _WRAPPERS:
        inner = open_wrappers(obj.get(wrapper))
        if inner:
            return inner
    tensors = {k: v for k, v in obj.items() if isinstance(k, str) and torch.is_tensor(v)}
    if not tensors and len(obj) == 1:
        return open_wrappers(next(iter(obj.values())))
    return {k: v.detach() if v.requires_grad else v for k, v in tensors.items()}


_WRAPPERS = (
    "params_ema",
    "ema",
    "ema_state_dict",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "params",
    "model",
    "module",
    "generator",
)


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise UnreadableCheckpointError(
                f"{path} is a folder, but one weight file was expected: give the file inside it."
            )
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise UnreadableCheckpointError(f"{path} does not exist. Check the path.") from None
    except OSError as error:
        raise UnreadableCheckpointError(
            f"{path} cannot be read: {error.strerror or error}."
        ) from error
    if not head:
        raise UnreadableCheckpointError(f"{path} is empty (0 bytes). {AGAIN}")
    return head


def _is_safetensors(head: bytes) -> bool:
    """Whether a file starts with eight bytes of header length, then a JSON object."""
    if len(head) < 9 or head[8:9] != b"{":
        return False
    return 2 <= int.from_bytes(head[:8], "little") <= MOST_HEADER


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UnreadableCheckpointError(
            f"{path} begins as a safetensors file but is truncated or damaged ({error}). {AGAIN}"
        ) from error


def _read_torch_zip(path: Path) -> object:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGED_ZIP as error:
        raise UnreadableCheckpointError(
            f"{path} begins as a PyTorch file but is truncated or damaged ({error}). {AGAIN}"
        ) from error
    if any(name.endswith(("/constants.pkl", "/code/")) or "/code/" in name for name in names):
        raise UnsafeCheckpointError(
            f"{path} is a TorchScript program, not plain weights: it was not loaded. "
            "Use the file of plain tensors, best as .safetensors."
        )
    if not any(name.endswith("/data.pkl") for name in names):
        raise UnreadableCheckpointError(
            f"{path} is a zip archive but not one written by PyTorch. "
            "If it is a packed download, unpack it and give the weight file inside."
        )
    return _torch_load(path, mmap=True)


def _torch_load(path: Path, *, mmap: bool) -> object:
    damaged = f"{path} looks like a PyTorch file but is truncated or damaged"
    try:
        if path.suffix == ".safetensors":  # torch.load believes the name, which is wrong here
            with path.open("rb") as file:
                return torch.load(file, map_location="cpu", weights_only=True)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if not mmap and _ends_early(path):
            raise UnreadableCheckpointError(f"{damaged}. {AGAIN}") from error
        raise _unsafe(path, _refused(error, path)) from error
    except MemoryError as error:
        raise UnreadableCheckpointError(
            f"{path} needs more memory than this machine has: the file is damaged or too large. "
            f"{AGAIN}"
        ) from error
    # A damaged file raises whatever the reader meets first: an end of file, an index into the
    # missing part, invalid text, a storage larger than the file.
    except (
        EOFError,
        RuntimeError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        AssertionError,
        ArithmeticError,
        struct.error,
    ) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UnreadableCheckpointError(f"{damaged} ({reason}). {AGAIN}") from error


def _ends_early(path: Path) -> bool:
    """Whether the file stops inside one of the pickles that begin PyTorch's older format.

    Only lists the instructions; nothing is built or run.
    """
    with path.open("rb") as file:
        try:
            for _ in range(5):  # magic number, version, system, the object, storage names
                for _instruction in pickletools.genops(file):
                    pass
                if not file.peek(1):
                    return False
        except ValueError:
            return not file.read(1)
        except (MemoryError, OverflowError):  # a length beyond any file
            return True
    return False


def _first_global(path: Path) -> str | None:
    """The first function or class that a pickle names, read without running anything."""
    strings: list[str] = []
    with path.open("rb") as file:
        try:
            for instruction, argument, _ in pickletools.genops(file):
                if instruction.name in ("GLOBAL", "INST"):
                    return str(argument).replace(" ", ".")
                if instruction.name == "STACK_GLOBAL":
                    return ".".join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
        except (ValueError, MemoryError, OverflowError):  # no pickle, cut off or damaged
            return None
    return None


def _unsafe(path: Path, reason: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f"{path} is a pickle with more than plain tensors ({reason}): loading it could run code, "
        "so it was not loaded. Expected plain tensors: get the weights as .safetensors, or save "
        "the state dict alone."
    )


def _refused(error: pickle.UnpicklingError, path: Path) -> str:
    """What the weights-only reader refused, as a short phrase out of its long message."""
    text = str(error)
    found = re.search(r"GLOBAL +([\w.]+)", text)
    asked_for = found.group(1) if found else _first_global(path)
    if asked_for:
        return f"it asks for {asked_for}"
    found = re.search(r"WeightsUnpickler error:\s*(.{1,120})", text)
    return found.group(1).strip() if found else "its instructions are not allowed for weights"


def _tensors(path: Path, obj: Any) -> dict[str, Tensor]:
    try:
        tensors = open_wrappers(obj)
    except RecursionError:  # it contains itself
        tensors = {}
    if not tensors:
        raise UnreadableCheckpointError(
            f"{path} has no named tensors, only a {type(obj).__name__}: expected a state dict. "
            "Choose a weight file."
        )
    return tensors
