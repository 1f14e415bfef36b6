"""Loss functions of the networks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def differences(x: Tensor) -> list[Tensor]:
    """First differences of (b, c, t, h, w) along width, height and, if t > 1, time."""
    found = [x.diff(dim=-1), x.diff(dim=-2)]
    if x.shape[2] > 1:
        found.append(x.diff(dim=2))
    return found


def gradient_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the first differences: compares edges, and changes over time."""
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
