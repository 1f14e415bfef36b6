"""Weight files of the released sizes and layouts, with generated numbers.

Each is made in a models folder when first needed; nothing is downloaded. Without a GPU the same
files hold tiny networks. Numbers are generated on the device, which is fastest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from generated import generate, key_shapes
from safetensors.torch import save_file
from torch import Tensor

from bench.cases.case import generated
from scripts.env import demo_weights
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams

from .items import NotPossibleError

# Files by the names for `path`: those of the converted release, then those of the release itself.
FILES = {
    **demo_weights.FILES,
    "unet.few": "diffusion_models/few_layers.safetensors",
    "unet.bin": "upscale_a_video/unet_video.bin",
    "vae.bin": "upscale_a_video/vae_video.bin",
    "vae_3d.bin": "upscale_a_video/vae_3d.bin",
    "flow.pth": "upscale_a_video/raft-things.pth",
}
FEW = UNetParams(
    channels=(32, 64),
    resnets=1,
    attention=(False, True),
    text_only=(True, False),
    context_dim=demo_weights.TEXT_WIDTH,
    heads=2,
    time_dim=64,
)
"""A U-Net with a few layers of every kind, as the time of compiling grows with their number."""
OPENCLIP_H = 1024
"""Width of the released text encoder."""
ALL_BYTES = 8 * 2**30
"""Disk space for all files of the released sizes, with a margin."""

AUTHORS = ("unet", "vae", "flow", "text_encoder")
"""Files that the shipped workflows load with the authors' weights."""

StateDict = dict[str, Tensor]


class WeightFiles:
    """The files, in ComfyUI's folders below ``models``."""

    def __init__(self, models: Path, device: torch.device) -> None:
        self.models, self.device = models, device
        self.makers = self._full_size() if device.type == "cuda" else self._tiny()

    def path(self, name: str) -> Path:
        """The file, made if missing. Raises NotPossibleError if there is too little disk space."""
        path = self.models / FILES[name]
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if self.device.type == "cuda" and free < ALL_BYTES:
            raise NotPossibleError(
                f"{free / 2**30:.1f} GiB are free in the folder for the weights, expected "
                f"{ALL_BYTES / 2**30:.0f}: choose another folder with --work"
            )
        weights = {key: value.cpu().contiguous() for key, value in self.makers[name]().items()}
        part = path.with_name(f"{path.name}.part")
        if path.suffix == ".safetensors":
            save_file(weights, part)
        else:
            torch.save(weights, part)
        part.replace(path)
        return path

    def lay_authors(self) -> None:
        """Make all files in place of the authors' converted weights."""
        for name in AUTHORS:
            self.path(name)

    def _full_size(self) -> dict[str, Callable[[], StateDict]]:
        vae_3d = replace(VAEParams(), temporal=False)
        return {
            "unet": lambda: self._unet(torch.float16),  # as the release is converted
            "unet.bin": lambda: self._unet(torch.float32),
            "unet.few": few_layers,
            "vae": lambda: self._vae(VAEParams()),
            "vae.bin": lambda: self._vae(VAEParams()),
            "vae_3d.bin": lambda: self._vae(vae_3d),
            "text_encoder": self._text_encoder,
            "flow": demo_weights.flow_weights,
            "flow.pth": raft_things,
        }

    def _unet(self, dtype: torch.dtype) -> StateDict:
        network = TemporalUNet(UNetParams(), dtype=dtype, device="meta")
        return generated(network, self.device).state_dict()

    def _vae(self, params: VAEParams) -> StateDict:
        return generated(TemporalVAE(params, device="meta"), self.device).state_dict()

    def _text_encoder(self) -> StateDict:
        weights = demo_weights.text_encoder_weights(OPENCLIP_H, str(self.device))
        return {key: value.half() for key, value in weights.items()}

    @staticmethod
    def _tiny() -> dict[str, Callable[[], StateDict]]:
        vae_3d = TemporalVAE(replace(demo_weights.VAE, temporal=False))
        return {
            "unet": few_layers,
            "unet.bin": few_layers,
            "unet.few": few_layers,
            "vae": demo_weights.vae_weights,
            "vae.bin": demo_weights.vae_weights,
            "vae_3d.bin": lambda: demo_weights.random_weights(vae_3d, torch.Generator()),
            "text_encoder": demo_weights.text_encoder_weights,
            "flow": demo_weights.flow_weights,
            "flow.pth": raft_things,
        }


def few_layers() -> StateDict:
    """The smallest U-Net with every kind of layer, and an embedding of the empty text."""
    generator = torch.Generator().manual_seed(0)
    weights = demo_weights.random_weights(TemporalUNet(FEW), generator)
    shape = (demo_weights.TEXT_TOKENS, FEW.context_dim)
    return {**weights, "null_text_embedding": torch.randn(shape, generator=generator)}


def raft_things() -> StateDict:
    """A RAFT in the layout of the release's propagator."""
    shapes = {key.removeprefix("module."): s for key, s in key_shapes("raft_things").items()}
    return {f"module.{key}": value for key, value in generate("raft.", shapes).items()}
