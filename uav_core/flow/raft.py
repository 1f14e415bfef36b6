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
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_PARTS = ("feature_encoder", "context_encoder", "corr_block", "update_block", "mask_predictor")
_FACTOR = 8
_NEIGHBOURS = 3


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
    try:
        model.corr_block.build_pyramid(a.features, b.features)
        width = model.update_block.hidden_state_size
        hidden, context = a.context[:, :width].tanh(), a.context[:, width:].relu()
        start = _positions(a.features)
        now = start
        for _ in range(iterations):
            correlations = model.corr_block.index_pyramid(centroids_coords=now)
            hidden, change = model.update_block(hidden, context, correlations, now - start)
            now = now + change
        return _enlarged(now - start, model.mask_predictor(hidden))
    finally:
        # torchvision would keep the correlations: gigabytes at 1080p.
        model.corr_block.corr_pyramid = []


def _positions(like: Tensor) -> Tensor:
    """(n, 2, h, w): x and y of every position."""
    n, _, h, w = like.shape
    y, x = torch.meshgrid(
        torch.arange(h, device=like.device, dtype=like.dtype),
        torch.arange(w, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack((x, y)).expand(n, 2, h, w)


def _enlarged(flow: Tensor, mask: Tensor) -> Tensor:
    """``flow`` (n, 2, h, w) enlarged 8 times: each position a mix of the nine coarse ones around.

    ``mask`` (n, 9 * 64, h, w) has the weights; section 3.3 of the paper.
    """
    n, _, h, w = flow.shape
    weights = rearrange(
        mask, "n (k y x) h w -> n 1 k y x h w", k=_NEIGHBOURS**2, y=_FACTOR, x=_FACTOR
    ).softmax(dim=2)
    around = F.unfold(_FACTOR * flow, _NEIGHBOURS, padding=_NEIGHBOURS // 2)
    around = around.view(n, 2, _NEIGHBOURS**2, 1, 1, h, w)
    return rearrange((weights * around).sum(dim=2), "n c y x h w -> n c (h y) (w x)")
