"""Attention of very wide heads as plain matrix products, for some queries at a time.

PyTorch's fast kernels take heads up to 256 wide. Its kernel for wider ones (the VAEs have one of
512) runs at a tenth of a card's speed.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import memory
from .abilities import is_complete

WIDEST_FLASH = 256
BLOCK = 256 * 2**20
"""Bytes of scores held at once; a quarter of that once memory ran out."""


def serves(q: Tensor) -> bool:
    """Whether to compute heads as wide as those of ``q`` (b h n d) here."""
    return (
        q.shape[-1] > WIDEST_FLASH
        and is_complete(q.device)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and (q.dtype == torch.float32 or _multiplies_into_fp32(q.device, q.dtype))
    )


def by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v, all (b h n d); scores are in fp32."""
    b, heads, count, d = q.shape
    q, k, v = (x.reshape(b * heads, -1, d) for x in (q, k, v))
    out = torch.empty_like(q)
    block = BLOCK // 4 if memory.spares(memory.Sparing.STRIPES) else BLOCK
    queries = max(1, block // (4 * len(k) * k.shape[1]))
    turned = k.transpose(1, 2)
    for start in range(0, count, queries):
        rows = slice(start, start + queries)
        scores = _scores(q[:, rows] * d**-0.5, turned)
        if mask is not None:
            wide = mask.expand(b, heads, count, k.shape[1])[:, :, rows]
            scores += wide.reshape(scores.shape)
        torch.bmm(scores.softmax(-1).to(v.dtype), v, out=out[:, rows])
    return out.view(b, heads, count, d)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    if q.dtype == torch.float32:
        return torch.bmm(q, k)
    return torch.bmm(q, k, out_dtype=torch.float32)


@functools.cache
def _multiplies_into_fp32(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this PyTorch can return the product of two half-precision matrices in fp32."""
    x = torch.ones(1, 8, 8, device=device, dtype=dtype)
    try:
        return torch.bmm(x, x, out_dtype=torch.float32).dtype == torch.float32
    except torch.OutOfMemoryError:
        raise  # says nothing about this PyTorch, and must not be remembered
    except (TypeError, RuntimeError, NotImplementedError):
        return False
