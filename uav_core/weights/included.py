"""The small trained weights that come with the pack, in its folder `weights`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CheckpointError, UnreadableCheckpointError
from ..frames.color import ColorMode
from .files import AGAIN

FOLDER = Path(__file__).parents[2] / "weights"
UNET = "uav_small_unet"
VAE_VIDEO = "uav_small_vae_video"
VAE_3D = "uav_small_vae_3d"
TEXT = "uav_small_text"
MARK = " (included)"
"""What the loaders add to these names in their lists."""

# What they are used with: the workflows, the command line and the evaluation read it here.
STEPS, GUIDANCE, NOISE_LEVEL = 4, 1.0, 20
PROPAGATED = 2
"""At so many of the last steps the latent is propagated."""
COLOR_FIX: ColorMode = "wavelet"
FRAMES_PER_GROUP = 8

REPAIR = (
    "The file came with this pack: run 'git checkout weights' in the pack's folder, or install "
    "the pack again."
)


def path_of(name: str) -> Path:
    """The file of UNET, VAE_VIDEO, VAE_3D or TEXT, there or not."""
    return FOLDER / f"{name}.safetensors"


@contextmanager
def repairable(path: Path) -> Iterator[None]:
    """Around loading an included file: its errors say how to get the file back."""
    if not path.is_file():
        raise UnreadableCheckpointError(f"{path} is missing. {REPAIR}")
    try:
        yield
    except CheckpointError as error:
        # The general advice is to download the file again, which there is nothing to do from.
        raise type(error)(f"{str(error).removesuffix(AGAIN)} {REPAIR}") from error
