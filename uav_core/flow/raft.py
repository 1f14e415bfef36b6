"""RAFT (Teed & Deng 2020, arXiv 2003.12039) on the neighbours of a clip, each frame encoded once.

torchvision's own call encodes both images of every pair anew and enlarges the flow after every
update. For the neighbours of a clip, in both directions, it would encode a frame four times where
once is enough, and enlarge twenty flows of which the last is used. The layers and the numbers are
torchvision's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PARTS = ("feature_encoder", "context_encoder", "corr_block", "update_block", "mask_predictor")


@dataclass(frozen=True)
class Encoded:
    """RAFT's encoding of an image (n, 3, h, w), at an eighth of its size."""

    features: Tensor
    """Features to correlate with those of another image."""
    context: Tensor
    """Initial hidden state and input of the updates, for flow that starts at this image."""

    def to(self, device: torch.device) -> Encoded:
        """The encoding on another device."""
        return Encoded(self.features.to(device), self.context.to(device))


def is_raft(model: nn.Module) -> bool:
    """Whether ``model`` has the parts of torchvision's RAFT."""
    return all(getattr(model, part, None) is not None for part in _PARTS)


def in_fp32(model: nn.Module) -> nn.Module:
    """``model``, or a copy in fp32 if its weights have another dtype."""
    tensors = [*model.parameters(), *model.buffers()]
    if all(x.dtype == torch.float32 for x in tensors if x.is_floating_point()):
        return model
    return copy.deepcopy(model).float()


def encode(model: Any, image: Tensor) -> Encoded:
    """Encode ``image`` (n, 3, h, w) in [-1, 1], whose sides are multiples of 8 from 128 up."""
    return Encoded(model.feature_encoder(image), model.context_encoder(image))


def flow_between(model: Any, a: Encoded, b: Encoded, iterations: int) -> Tensor:
    """The flow (n, 2, h, w) in pixels from image ``a`` to image ``b``."""
    # Imported here: torchvision is heavy, and only RAFT needs it.
    from torchvision.models.optical_flow.raft import make_coords_grid, upsample_flow

    n, _, h, w = a.features.shape
    try:
        model.corr_block.build_pyramid(a.features, b.features)
        width = model.update_block.hidden_state_size
        hidden, context = a.context[:, :width].tanh(), a.context[:, width:].relu()
        now = start = make_coords_grid(n, h, w, device=str(a.features.device))
        for _ in range(iterations):
            correlations = model.corr_block.index_pyramid(centroids_coords=now)
            hidden, change = model.update_block(hidden, context, correlations, now - start)
            now = now + change
        return upsample_flow(now - start, model.mask_predictor(hidden))
    finally:
        # torchvision would keep the correlations: gigabytes at 1080p.
        model.corr_block.corr_pyramid = []
