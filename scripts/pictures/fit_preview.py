"""Fit the colours of the live preview to the included VAE: INCLUDED_RGB in nodes/model/latent.py.

The fit is linear, from a latent to the decoded picture at the latent's size. The sample clip is
used with its colours in every order, and inverted, so that no colour is favoured.

    python -m scripts.pictures.fit_preview
"""

from __future__ import annotations

import itertools
import sys

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.env.layout import ROOT

sys.path.append(str(ROOT))
from uav_core import load_vae
from uav_core.models.vae import LATENT_SCALE, UPSCALE
from uav_core.weights import included

FRAMES = (2, 20)
ROWS, COLUMNS = slice(64, 192), slice(100, 292)


def clip() -> Tensor:
    """A part of some frames of the sample, (1, 3, t, h, w) in [-1, 1]."""
    with av.open(str(ROOT / "assets" / "sample_x4.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    chosen = np.stack([frames[i][ROWS, COLUMNS] for i in FRAMES])
    return torch.from_numpy(chosen).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def shrunk(frames: Tensor) -> Tensor:
    """(1, 3, t, h, w) at a quarter of the size, by area."""
    return F.avg_pool3d(frames, (1, UPSCALE, UPSCALE))


def rows(x: Tensor) -> Tensor:
    """(1, c, t, h, w) as (positions, c)."""
    return x[0].flatten(1).T


@torch.inference_mode()
def main() -> None:
    """Fit, and print the numbers."""
    vae = load_vae(str(included.path_of(included.VAE_VIDEO)))
    latents, colours = [], []
    for order, sign in itertools.product(itertools.permutations(range(3)), (1, -1)):
        frames = sign * clip()[:, list(order)]
        latent = vae.encode(frames)
        decoded = vae.decode(latent, shrunk(frames), w=1.0).clamp(-1, 1)
        latents.append(rows(latent * LATENT_SCALE))
        colours.append(rows(shrunk(decoded)))
    known, wanted = torch.cat(latents), torch.cat(colours)
    known = torch.cat([known, torch.ones(len(known), 1)], dim=1)
    found = torch.linalg.lstsq(known, wanted).solution
    explained = 1 - (wanted - known @ found).var() / wanted.var()
    for row in found:
        print([round(float(x), 3) for x in row])
    print(f"the last row is INCLUDED_RGB_BIAS; explained: {float(explained):.3f}")


if __name__ == "__main__":
    main()
