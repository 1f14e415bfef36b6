"""Triton kernels of GroupNorm and SiLU in channels-last layout, forward and backward.

There is no autotuning, and the number of channels is not a compile-time constant. So a few variants
serve all layers, and are compiled while the media load.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

import triton
import triton.language as tl

ROWS = 32
"""Positions that a program handles at once."""


@triton.jit(do_not_specialize=["S", "NB"])
def sums(x, part, S, NB, EACH, C, CP: tl.constexpr, BS: tl.constexpr):
    """Sum and sum of squares of every channel, over EACH positions of a clip."""
    b = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1)
    c = tl.arange(0, CP)
    cm = c < C
    s = tl.zeros((CP,), tl.float32)
    q = tl.zeros((CP,), tl.float32)
    base = x + b * S * C
    for r in range(0, EACH, BS):
        rows = k * EACH + r + tl.arange(0, BS)
        m = (rows < S)[:, None] & cm[None, :]
        v = tl.load(base + rows[:, None] * C + c[None, :], mask=m, other=0.0).to(tl.float32)
        s += tl.sum(v, 0)
        q += tl.sum(v * v, 0)
    o = part + (b * NB + k) * 2 * C
    tl.store(o + c, s, mask=cm)
    tl.store(o + C + c, q, mask=cm)


@triton.jit(do_not_specialize=["NB", "G", "K"])
def scales(
    part, w, bias, scale, shift, mean_o, rstd_o, NB, n, eps, C, G, K,
    GP: tl.constexpr, KP: tl.constexpr,
):  # fmt: skip
    """Scale and shift of every channel; mean and 1 / standard deviation of every group."""
    b = tl.program_id(0)
    g1 = tl.arange(0, GP)
    g = g1[:, None]
    k = tl.arange(0, KP)[None, :]
    c = g * K + k
    m = (g < G) & (k < K)
    s = tl.zeros((GP, KP), tl.float32)
    q = tl.zeros((GP, KP), tl.float32)
    for i in range(0, NB):
        o = part + (b * NB + i) * 2 * C
        s += tl.load(o + c, mask=m, other=0.0)
        q += tl.load(o + C + c, mask=m, other=0.0)
    mean = tl.sum(s, 1) / n
    var = tl.sum(q, 1) / n - mean * mean
    rstd = 1.0 / tl.sqrt(tl.maximum(var, 0.0) + eps)
    sc = tl.load(w + c, mask=m, other=0.0) * rstd[:, None]
    sh = tl.load(bias + c, mask=m, other=0.0) - mean[:, None] * sc
    tl.store(scale + b * C + c, sc, mask=m)
    tl.store(shift + b * C + c, sh, mask=m)
    tl.store(mean_o + b * G + g1, mean, mask=g1 < G)
    tl.store(rstd_o + b * G + g1, rstd, mask=g1 < G)


@triton.jit(do_not_specialize=["S"])
def apply(x, y, scale, shift, S, EACH, C, CP: tl.constexpr, BS: tl.constexpr, ACT: tl.constexpr):
    """Write x * scale + shift, or with ACT its SiLU."""
    b = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1)
    c = tl.arange(0, CP)
    cm = c < C
    sc = tl.load(scale + b * C + c, mask=cm, other=0.0)
    sh = tl.load(shift + b * C + c, mask=cm, other=0.0)
    base = b * S * C
    for r in range(0, EACH, BS):
        rows = k * EACH + r + tl.arange(0, BS)
        m = (rows < S)[:, None] & cm[None, :]
        at = base + rows[:, None] * C + c[None, :]
        z = tl.load(x + at, mask=m, other=0.0).to(tl.float32) * sc[None, :] + sh[None, :]
        if ACT:
            z = z / (1.0 + tl.exp(-z))
        tl.store(y + at, z.to(y.dtype.element_ty), mask=m)


@triton.jit(do_not_specialize=["S", "NB"])
def back_sums(
    x, dy, part, scale, shift, S, NB, EACH, C,
    CP: tl.constexpr, BS: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    """Sums of the gradient, and of gradient times input, of every channel."""
    b = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1)
    c = tl.arange(0, CP)
    cm = c < C
    sc = tl.load(scale + b * C + c, mask=cm, other=0.0)
    sh = tl.load(shift + b * C + c, mask=cm, other=0.0)
    s = tl.zeros((CP,), tl.float32)
    q = tl.zeros((CP,), tl.float32)
    base = b * S * C
    for r in range(0, EACH, BS):
        rows = k * EACH + r + tl.arange(0, BS)
        m = (rows < S)[:, None] & cm[None, :]
        at = base + rows[:, None] * C + c[None, :]
        v = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
        d = tl.load(dy + at, mask=m, other=0.0).to(tl.float32)
        if ACT:
            z = v * sc[None, :] + sh[None, :]
            sig = 1.0 / (1.0 + tl.exp(-z))
            d = d * sig * (1.0 + z * (1.0 - sig))
        s += tl.sum(d, 0)
        q += tl.sum(d * v, 0)
    o = part + (b * NB + k) * 2 * C
    tl.store(o + c, s, mask=cm)
    tl.store(o + C + c, q, mask=cm)


@triton.jit(do_not_specialize=["NB", "G", "K"])
def back_scales(
    part, w, mean_i, rstd_i, cb, cc, dgamma, dbeta, NB, n, C, G, K,
    GP: tl.constexpr, KP: tl.constexpr,
):  # fmt: skip
    """Factor of the input and constant in the input's gradient; weight gradients of each clip."""
    b = tl.program_id(0)
    g1 = tl.arange(0, GP)
    g = g1[:, None]
    k = tl.arange(0, KP)[None, :]
    c = g * K + k
    m = (g < G) & (k < K)
    s = tl.zeros((GP, KP), tl.float32)
    q = tl.zeros((GP, KP), tl.float32)
    for i in range(0, NB):
        o = part + (b * NB + i) * 2 * C
        s += tl.load(o + c, mask=m, other=0.0)
        q += tl.load(o + C + c, mask=m, other=0.0)
    mean = tl.load(mean_i + b * G + g1, mask=g1 < G, other=0.0)
    rstd = tl.load(rstd_i + b * G + g1, mask=g1 < G, other=0.0)
    p = (q - mean[:, None] * s) * rstd[:, None]
    gamma = tl.load(w + c, mask=m, other=0.0)
    a1 = tl.sum(gamma * s, 1) / n
    a2 = tl.sum(gamma * p, 1) / n
    one = tl.zeros((GP, KP), tl.float32) + 1.0
    tl.store(cb + b * C + c, one * (-rstd * rstd * a2)[:, None], mask=m)
    tl.store(cc + b * C + c, one * (-rstd * a1 + rstd * rstd * a2 * mean)[:, None], mask=m)
    tl.store(dgamma + b * C + c, p, mask=m)
    tl.store(dbeta + b * C + c, s, mask=m)


@triton.jit(do_not_specialize=["S"])
def back(
    x, dy, dx, scale, shift, cb, cc, S, EACH, C,
    CP: tl.constexpr, BS: tl.constexpr, ACT: tl.constexpr,
):  # fmt: skip
    """Write the gradient of the input."""
    b = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1)
    c = tl.arange(0, CP)
    cm = c < C
    sc = tl.load(scale + b * C + c, mask=cm, other=0.0)
    sh = tl.load(shift + b * C + c, mask=cm, other=0.0)
    kb = tl.load(cb + b * C + c, mask=cm, other=0.0)
    kc = tl.load(cc + b * C + c, mask=cm, other=0.0)
    base = b * S * C
    for r in range(0, EACH, BS):
        rows = k * EACH + r + tl.arange(0, BS)
        m = (rows < S)[:, None] & cm[None, :]
        at = base + rows[:, None] * C + c[None, :]
        v = tl.load(x + at, mask=m, other=0.0).to(tl.float32)
        d = tl.load(dy + at, mask=m, other=0.0).to(tl.float32)
        if ACT:
            z = v * sc[None, :] + sh[None, :]
            sig = 1.0 / (1.0 + tl.exp(-z))
            d = d * sig * (1.0 + z * (1.0 - sig))
        tl.store(
            dx + at,
            (sc[None, :] * d + kb[None, :] * v + kc[None, :]).to(dx.dtype.element_ty),
            mask=m,
        )
