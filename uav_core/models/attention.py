"""Attention on token sequences, with the signature of ComfyUI's own kernels."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend

from ..devices import abilities as devices
from ..devices import ways
from ..devices.attention import by_products

MAX_SCORES = 64 * 2**20
"""Bytes of attention scores held at once where there is no fused kernel."""

# CUDA kernels put (batch x heads) on a grid axis, which is limited to 65535.
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
    """PyTorch's attention, in batches that stay inside CUDA's grid limit.

    Where PyTorch has no fused kernel for the device or the width of a head, it would hold the
    scores of all queries and keys. The queries then run in parts, with the same result, so that
    the scores take at most MAX_SCORES bytes (or those of one query, if they are more).
    """
    step = max(1, _MAX_GRID // heads)
    if q.shape[0] > step:
        parts = [
            scaled_dot_product(*part, heads, mask)
            for part in zip(q.split(step), k.split(step), v.split(step), strict=True)
        ]
        return torch.cat(parts)
    q, k, v = (rearrange(x, "b n (h d) -> b h n d", h=heads) for x in (q, k, v))
    if ways.of(q.device).multiplies_scores(q):
        return rearrange(by_products(q, k, v, mask), "b h n d -> b n (h d)")
    # Kernels without fusion compute half precision in fp32, so every score counts 4 bytes.
    row = 4 * q.shape[0] * heads * k.shape[2]
    if row * q.shape[2] > MAX_SCORES and not _is_fused(q, k, v, mask):
        out = _in_parts(q, k, v, mask, max(1, MAX_SCORES // row))
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return rearrange(out, "b h n d -> b n (h d)")


def _is_fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> bool:
    """Whether PyTorch has a kernel for these (b h n d) that never holds all scores.

    False where PyTorch cannot tell: in parts the result is the same.
    """
    if not devices.is_complete(q.device):
        return False
    return torch.ops.aten._fused_sdp_choice(q, k, v, mask) != SDPBackend.MATH.value


def _in_parts(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, queries: int) -> Tensor:
    """Attention for ``queries`` queries at a time."""
    count = q.shape[2]
    if mask is not None:
        mask = mask.expand(*mask.shape[:-2], count, mask.shape[-1])
    parts = []
    for start in range(0, count, queries):
        rows = slice(start, start + queries)
        part_mask = None if mask is None else mask[..., rows, :]
        parts.append(F.scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=part_mask))
    return torch.cat(parts, dim=2)
