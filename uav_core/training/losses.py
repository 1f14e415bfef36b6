"""What the networks are trained to make small."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def differences(x: Tensor) -> list[Tensor]:
    """First differences of (b, c, t, h, w) along width, height and, in a clip, time."""
    found = [x.diff(dim=-1), x.diff(dim=-2)]
    if x.shape[2] > 1:
        found.append(x.diff(dim=2))
    return found


def gradient_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the first differences: edges in place, and as steady as they are."""
    pairs = zip(differences(prediction), differences(target), strict=True)
    return torch.stack([F.l1_loss(p, t) for p, t in pairs]).sum()


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of a diagonal Gaussian from the standard one, mean over all elements."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss on its outputs for real and generated clips."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """The generator's side of the hinge loss."""
    return -fake.mean()


class PatchDiscriminator(nn.Module):
    """Judges patches of a clip: spectrally normalised 3-D convolutions, no normalisation layers.

    (b, 3, t, h, w) -> (b, 1, t, h / 8, w / 8).
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [3, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for cin, cout in pairwise(widths):
            conv = nn.Conv3d(cin, cout, (3, 4, 4), stride=(1, 2, 2), padding=1)
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv3d(widths[-1], 1, 3, padding=1)))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
