"""Write finished runs as safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError
from ..files import save_tensors
from ..models.unet import TemporalUNet
from ..sampling.pipeline import NULL_TEXT_KEY, load_unet
from ..weights import included
from ..weights.checkpoints import load_checkpoint
from .unet import UNetWithTexts

RESULT = "result.safetensors"
NEGATIVE_TEXT_KEY = "negative_text_embedding"
TEXT_KEYS = (NULL_TEXT_KEY, NEGATIVE_TEXT_KEY)
METADATA = {"uav.licence": "MIT", "uav.note": "trained from nothing with uav_core.training"}


def result_of(place: Path) -> Path:
    """The weight file itself, or the result in a run's folder; InputError if there is none."""
    path = place / RESULT if place.is_dir() else place
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a weight file or a finished run.")
    return path


def write(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Save tensors as ``dtype`` (rotary tables as fp32); a stopped write leaves the old file."""
    kept = {
        name: value.to("cpu", torch.float32 if name.endswith("freqs") else dtype).contiguous()
        for name, value in tensors.items()
    }
    save_tensors(path, kept, METADATA)


def unet_tensors(model: UNetWithTexts) -> dict[str, Tensor]:
    """The tensors of a U-Net under the release's names, and its text embeddings."""
    return {**model.unet.state_dict(), **model.texts.state_dict()}


def load_trained_unet(place: Path) -> tuple[TemporalUNet, dict[str, Tensor]]:
    """A U-Net of any size and its text embeddings, from a run or a file."""
    path = result_of(place)
    tensors = load_checkpoint(path, "unet").state_dict
    texts = {name: tensors.pop(name).float() for name in TEXT_KEYS if name in tensors}
    return load_unet(tensors), texts


def load_texts(path: Path) -> dict[str, Tensor]:
    """The text embeddings in a safetensors file, (tokens, dim) each."""
    return {name: value.float() for name, value in load_file(path).items() if name in TEXT_KEYS}


def export(
    output: Path, vae: Path, decoder: Path | None = None, unet: Path | None = None
) -> list[Path]:
    """Write finished runs in fp16 under the names of the included weights. Returns the paths."""
    output.mkdir(parents=True, exist_ok=True)
    files = {included.VAE_3D: load_file(result_of(vae))}
    if decoder is not None:
        files[included.VAE_VIDEO] = load_file(result_of(decoder))
    if unet is not None:
        tensors = load_file(result_of(unet))
        files[included.TEXT] = {name: tensors[name] for name in TEXT_KEYS}
        del tensors[NEGATIVE_TEXT_KEY]
        files[included.UNET] = tensors
    paths = []
    for name, tensors in files.items():
        path = output / f"{name}.safetensors"
        write(path, tensors, torch.float16)
        paths.append(path)
    return paths
