"""Attention on token sequences, behind one signature that ComfyUI's own kernels share."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

# CUDA launches put (batch x heads) on a grid axis that ends at 65535.
_MAX_GRID = 65535


class Attention(Protocol):
    """``attend(q, k, v, heads, mask=None)`` on ``(batch, tokens, heads * dim)`` tensors.

    ``mask`` is an additive bias broadcastable to ``(batch, heads, queries, keys)``; the scale is
    ``dim ** -0.5``. ComfyUI's ``optimized_attention`` has this signature.
    """

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None
    ) -> Tensor: ...


def scaled_dot_product(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """PyTorch's fused attention, in batches that stay inside CUDA's grid limit."""
    step = max(1, _MAX_GRID // heads)
    if q.shape[0] > step:
        parts = [
            scaled_dot_product(*part, heads, mask)
            for part in zip(q.split(step), k.split(step), v.split(step), strict=True)
        ]
        return torch.cat(parts)
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return rearrange(out, "b h n d -> b n (h d)")
