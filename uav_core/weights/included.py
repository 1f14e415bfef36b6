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
"""The loaders add this to these names in their lists."""

# Settings for these weights, used by the workflows, the command line and the evaluation.
STEPS, GUIDANCE, NOISE_LEVEL = 1, 1.0, 20
PROPAGATED = 2
"""Number of last steps at which the latent is propagated, at most."""
COLOR_FIX: ColorMode = "wavelet"
FRAMES_PER_GROUP = 8

REPAIR = (
    "The file came with this pack: run 'git checkout weights' in the pack's folder, or install "
    "the pack again."
)


def path_of(name: str) -> Path:
    """The path of UNET, VAE_VIDEO, VAE_3D or TEXT, whether the file exists or not."""
    return FOLDER / f"{name}.safetensors"


@contextmanager
def repairable(path: Path) -> Iterator[None]:
    """Wrap the loading of an included file, so that its errors say how to restore the file."""
    if not path.is_file():
        raise UnreadableCheckpointError(f"{path} is missing. {REPAIR}")
    try:
        yield
    except CheckpointError as error:
        # AGAIN, the general advice to download the file again, does not fit an included file.
        raise type(error)(f"{str(error).removesuffix(AGAIN)} {REPAIR}") from error
