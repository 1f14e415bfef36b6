"""The state of a stream, to go on from after a crash, and its safetensors file.

The file is written whole or not at all.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import InputError, UpscaleAVideoError
from ...files import save_tensors
from .frames import HeldFrames, separate
from .params import StreamParams
from .sweep import Motions
from .wave import Wave

FORMAT = 1
_META, _CHECKSUM = "stream", "blake2b"
AGAIN = "Begin the scene again from its first frame."


class DamagedStateError(UpscaleAVideoError, ValueError):
    """A state is missing, cut short or changed; a stream cannot go on from it."""


@dataclass(frozen=True)
class StreamState:
    """Everything under way in a stream."""

    meta: Mapping[str, Any]
    """Plain JSON values: the run it belongs to, and how far every step has come."""
    tensors: Mapping[str, Tensor]
    """On the CPU, (1, c, n, h, w) each; empty ones are left out."""


def collect(wave: Wave, ddim: str) -> StreamState:
    """The state of a wave; ``ddim`` is the name of its DDIM."""
    found: dict[str, Tensor | None] = {
        "finished": _stacked(wave.finished),
        "flows": wave.motions.stack(),
    }
    swept: dict[str, int] = {}
    for i, step in enumerate(wave.steps):
        found[f"latents.{i}"], found[f"pending.{i}"] = _stacked(step.latents), step.pending
        if step.sweep is not None:
            swept[str(i)] = step.sweep.x0.first
            found[f"x0.{i}"], found[f"eps.{i}"] = _stacked(step.sweep.x0), _stacked(step.sweep.eps)
            carried = step.sweep.carried
            found[f"carried.{i}"] = None if carried is None else carried[:, :, None]
    meta = {
        "format": FORMAT,
        "ddim": ddim,
        "params": _plain(wave.params),
        "fetched": wave.finished.first,
        "segments": [step.segment for step in wave.steps],
        "swept": swept,
    }
    tensors = {name: _own(x) for name, x in found.items() if x is not None}
    return StreamState(meta, tensors)


def rebuild(state: StreamState, params: StreamParams, ddim: str, motions: Motions) -> Wave:
    """The wave of a state; ``motions`` are new and take the state's flows.

    Raises InputError for a state of another scene or run, DamagedStateError for one in which
    something is missing or of the wrong size.
    """
    _check_same_run(state.meta, params, ddim)
    wave, parts = Wave(params, motions), _Parts(state, motions)
    segments, swept, fetched = _positions(state.meta, wave)
    before = None
    for i, step in enumerate(wave.steps):
        step.segment = segments[i]
        start = wave.segment_start(i)
        # The first step's frames may have come in already for a pass that did not take place.
        stop = start + parts.length(f"latents.{i}") if before is None else before
        step.latents = HeldFrames(start, parts.frames(f"latents.{i}", stop - start))
        step.pending = parts.clip(f"pending.{i}", wave.shared(i))
        before = start
        if step.sweep is not None:
            before = swept[str(i)]
            count = start - before
            step.sweep.x0 = HeldFrames(before, parts.frames(f"x0.{i}", count))
            step.sweep.eps = HeldFrames(before, parts.frames(f"eps.{i}", count))
            carried = parts.frames(f"carried.{i}", 1 if before else 0)
            step.sweep.carried = carried[0] if carried else None
    assert before is not None
    wave.finished = HeldFrames(fetched, parts.frames("finished", before - fetched))
    count = parts.length("flows")
    motions.restore(wave.first_pair(), parts.frames("flows", count, channels=4))
    parts.check_all_used()
    return wave


class _Parts:
    """A state's tensors, checked one by one as they are taken."""

    def __init__(self, state: StreamState, motions: Motions) -> None:
        self.tensors, self.params, self.device = (
            dict(state.tensors),
            motions.params,
            motions.device,
        )

    def length(self, name: str) -> int:
        tensor = self.tensors.get(name)
        return 0 if tensor is None or tensor.ndim != 5 else tensor.shape[2]

    def clip(self, name: str, frames: int, channels: int | None = None) -> Tensor | None:
        tensor, p = self.tensors.pop(name, None), self.params
        expected = (1, channels or p.channels, frames, p.h, p.w) if frames else None
        got = None if tensor is None else tuple(tensor.shape)
        if got != expected:
            raise DamagedStateError(
                f"The state's '{name}' is {got or 'missing'}: expected {expected or 'none'}. "
                f"{AGAIN}"
            )
        return None if tensor is None else tensor.to(self.device)

    def frames(self, name: str, frames: int, channels: int | None = None) -> list[Tensor]:
        clip = self.clip(name, frames, channels)
        return [] if clip is None else separate(clip)

    def check_all_used(self) -> None:
        if self.tensors:
            raise DamagedStateError(
                f"The state has unknown tensors: {sorted(self.tensors)}. {AGAIN}"
            )


def _check_same_run(meta: Mapping[str, Any], params: StreamParams, ddim: str) -> None:
    wanted = {"format": FORMAT, "ddim": ddim, **_plain(params)}
    stored = meta.get("params")
    found = {"format": meta.get("format"), "ddim": meta.get("ddim")}
    found |= stored if isinstance(stored, dict) else {}
    names = sorted(name for name in wanted.keys() | found if wanted.get(name) != found.get(name))
    if names:
        raise InputError(
            "The state belongs to another run: "
            + ", ".join(f"{n} is {found.get(n)}, expected {wanted.get(n)}" for n in names)
            + ". Use the settings of that run, or begin the scene again."
        )


def _positions(meta: Mapping[str, Any], wave: Wave) -> tuple[list[int], dict[str, int], int]:
    """Every step's next segment, the frames swept at steps that propagate, the frames fetched."""
    segments, swept, fetched = (meta.get(name) for name in ("segments", "swept", "fetched"))
    sweeping = {str(i) for i, step in enumerate(wave.steps) if step.sweep is not None}
    if (
        isinstance(segments, list)
        and len(segments) == len(wave.steps)
        and isinstance(swept, dict)
        and swept.keys() == sweeping
        and all(_within(x, len(wave.params.plan)) for x in segments)
        and all(_within(x, wave.params.frames) for x in (*swept.values(), fetched))
    ):
        return segments, swept, int(fetched or 0)
    raise DamagedStateError(
        f"The state's positions do not match its run: segments {segments}, swept {swept}, fetched "
        f"{fetched}. {AGAIN}"
    )


def _within(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _plain(params: StreamParams) -> dict[str, Any]:
    """The params as JSON gives them back."""
    return json.loads(json.dumps(dataclasses.asdict(params)))


def _stacked(held: HeldFrames) -> Tensor | None:
    return held.stack(held.first, held.stop) if len(held) else None


def _own(tensor: Tensor) -> Tensor:
    """A copy on the CPU that shares no memory with the stream."""
    copied = tensor.cpu()
    return copied.clone() if copied is tensor else copied


def save_state(path: str | os.PathLike[str], state: StreamState) -> None:
    """Write ``state`` to a file beside ``path`` and move it into place.

    A crash leaves the file that was there before. Raises OSError if writing fails.
    """
    meta = json.dumps(state.meta, sort_keys=True)
    metadata = {_META: meta, _CHECKSUM: _checksum(meta, state.tensors)}
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    save_tensors(Path(path), tensors, metadata)


def load_state(path: str | os.PathLike[str]) -> StreamState:
    """The state in a file, after its checksum is compared. Raises DamagedStateError."""
    path = Path(path)
    try:
        # Read whole: on some systems a mapped file could not be replaced by the next state.
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
            f"{path} ({len(data)} bytes) is not a complete state of a stream ({error!r}). {AGAIN}"
        ) from error
    if _checksum(text, tensors) != checksum:
        raise DamagedStateError(f"{path} has changed since it was written. {AGAIN}")
    return StreamState(meta, tensors)


def _checksum(meta: str, tensors: Mapping[str, Tensor]) -> str:
    """A checksum over everything that is read back, so that any damaged bit changes it."""
    digest = hashlib.blake2b(meta.encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
