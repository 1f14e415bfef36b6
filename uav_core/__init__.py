"""Upscale-A-Video without ComfyUI: networks, schedule, segments, propagation, colour, flow."""

from .errors import (
    CheckpointError,
    CheckpointMismatchError,
    InputError,
    UnreadableCheckpointError,
    UnsafeCheckpointError,
    UpscaleAVideoError,
    WrongCheckpointError,
)
from .sampling.pipeline import load_unet, load_vae, upscale
from .sampling.propagation import propagate

__all__ = [
    "CheckpointError",
    "CheckpointMismatchError",
    "InputError",
    "UnreadableCheckpointError",
    "UnsafeCheckpointError",
    "UpscaleAVideoError",
    "WrongCheckpointError",
    "load_unet",
    "load_vae",
    "propagate",
    "upscale",
]
