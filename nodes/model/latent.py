"""ComfyUI's latent format of the U-Net, with the factors of its live preview."""

from __future__ import annotations

import os
from pathlib import Path

import comfy.latent_formats
from torch import Tensor

from ...uav_core.weights import included

# Factors from latent channels (rows) to RGB in [-1, 1], and a bias: the best linear fit to what the
# included VAE decodes. Run scripts/pictures/fit_preview.py again when the weights change (a test
# checks this).
INCLUDED_RGB = [
    [0.404, 0.074, 0.030],
    [0.120, 0.349, 0.154],
    [0.000, 0.097, 0.326],
    [-0.029, -0.022, -0.026],
]
INCLUDED_RGB_BIAS = [-0.013, -0.048, -0.180]


def middle_frame(latent: Tensor) -> Tensor:
    """The middle frame of a latent (b, c, t, h, w), as (b, c, 1, h, w)."""
    if latent.ndim != 5:
        return latent
    middle = latent.shape[2] // 2
    return latent[:, :, middle : middle + 1]


class VideoLatent(comfy.latent_formats.SD_X4):
    """The x4 upscaler's latent, with time. Previews show its middle frame."""

    latent_dimensions = 3

    def __init__(self, included: bool = False) -> None:
        """``included``: use the preview factors of the included weights; their latents differ."""
        super().__init__()
        self.latent_rgb_factors_reshape = middle_frame
        if included:
            self.latent_rgb_factors = INCLUDED_RGB
            self.latent_rgb_factors_bias = INCLUDED_RGB_BIAS


def latent_format(path: str | os.PathLike[str]) -> VideoLatent:
    """The latent format of the U-Net in ``path``."""
    known = included.path_of(included.UNET)
    return VideoLatent(Path(path).resolve() == known.resolve())
