"""Triton kernels: GroupNorm and SiLU in three, and the sum of two tensors and a bias in one.

The three read the input twice and write once.

Sums are taken about a channel's first value, so that a mean far from zero loses no digits.
"""

# pyright: reportMissingImports=false, reportIndexIssue=false

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from .layout import channels_last

ROWS, CHANNELS = 32, 128
"""Positions and channels that a program processes at once."""
PROGRAMS = 1024
"""Number of programs that fills any card."""
PARTS, LEAST_GROUP = 64, 16
"""Partial sums added up at once, and channels to which smaller groups are padded for it."""


# Values that differ between layers must not be compiled in: each variant takes half a second.
@triton.jit(do_not_specialize=["positions", "parts"])
def _sums(x, sums, positions, channels, each, parts, R: tl.constexpr, C: tl.constexpr):
    """Sums and sums of squares of every channel over ``each`` positions of a clip."""
    clip, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * C + tl.arange(0, C)
    is_channel = c < channels
    first = x + clip * positions * channels + c
    pivot = tl.load(first, mask=is_channel, other=0.0).to(tl.float32)
    total = tl.zeros((R, C), tl.float32)
    squares = tl.zeros((R, C), tl.float32)
    for start in range(0, each, R):
        row = part * each + start + tl.arange(0, R)
        mask = (row < positions)[:, None] & is_channel[None, :]
        at = first[None, :] + row.to(tl.int64)[:, None] * channels
        value = tl.load(at, mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - pivot[None, :], 0.0)
        total += value
        squares += value * value
    out = sums + (clip * parts + part) * 2 * channels + c
    tl.store(out, tl.sum(total, 0), mask=is_channel)
    tl.store(out + channels, tl.sum(squares, 0), mask=is_channel)


@triton.jit(do_not_specialize=["positions", "parts", "size"])
def _scales(
    sums, x, shift, weight, bias, scale, offset, positions, channels, parts, size, eps,
    SHIFTED: tl.constexpr, P: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """Scale and offset of the channels of a group, ``size`` of them."""
    clip, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    k = tl.arange(0, K)
    inside = k < size
    c = group * size + k
    totals = tl.zeros((P, K), tl.float32)
    all_squares = tl.zeros((P, K), tl.float32)
    for start in range(0, parts, P):
        part = start + tl.arange(0, P)
        mask = (part < parts)[:, None] & inside[None, :]
        at = sums + (clip * parts + part)[:, None] * 2 * channels + c[None, :]
        totals += tl.load(at, mask=mask, other=0.0)
        all_squares += tl.load(at + channels, mask=mask, other=0.0)
    total, squares = tl.sum(totals, 0), tl.sum(all_squares, 0)
    pivot = tl.load(x + clip * positions * channels + c, mask=inside, other=0.0).to(tl.float32)
    count = positions * 1.0
    about = total / count
    squares = squares - total * about
    more = tl.zeros((K,), tl.float32)
    if SHIFTED:
        more = tl.load(shift + clip * channels + c, mask=inside, other=0.0).to(tl.float32)
    mean = tl.where(inside, pivot + about + more, 0.0)
    centre = tl.sum(mean, 0) / size
    spread = tl.where(inside, mean - centre, 0.0)
    squares = tl.where(inside, squares, 0.0)
    variance = tl.sum(squares, 0) / count / size + tl.sum(spread * spread, 0) / size
    rate = 1.0 / tl.sqrt(tl.maximum(variance, 0.0) + eps)
    by = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32) * rate
    to = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32) + (more - centre) * by
    tl.store(scale + clip * channels + c, by, mask=inside)
    tl.store(offset + clip * channels + c, to, mask=inside)


@triton.jit(do_not_specialize=["positions"])
def _apply(
    x, y, scale, offset, positions, channels, each,
    R: tl.constexpr, C: tl.constexpr, ACTIVATE: tl.constexpr,
):  # fmt: skip
    """x * scale + offset, or its SiLU."""
    clip, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * C + tl.arange(0, C)
    is_channel = c < channels
    by = tl.load(scale + clip * channels + c, mask=is_channel, other=0.0)[None, :]
    to = tl.load(offset + clip * channels + c, mask=is_channel, other=0.0)[None, :]
    for start in range(0, each, R):
        row = part * each + start + tl.arange(0, R)
        mask = (row < positions)[:, None] & is_channel[None, :]
        at = clip * positions * channels + row.to(tl.int64)[:, None] * channels + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32) * by + to
        if ACTIVATE:
            value = value / (1.0 + tl.exp(-value))
        tl.store(y + at, value.to(y.dtype.element_ty), mask=mask)


def _divided(clips: int, positions: int, channels: int) -> tuple[int, int, int, int]:
    """Channels of a program and programs for all, positions of a program and programs for all."""
    width = min(CHANNELS, triton.next_power_of_2(channels))
    columns = triton.cdiv(channels, width)
    most = max(1, PROGRAMS // (clips * columns))
    each = triton.cdiv(triton.cdiv(positions, most), ROWS) * ROWS
    return width, columns, each, triton.cdiv(positions, each)


def normed(
    x: Tensor,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    activate: bool,
) -> Tensor:
    """x + ``shift`` (b, c) normalised, or its SiLU; ``x`` (b c ...) has its channels last."""
    clips, channels = x.shape[:2]
    positions, size = x[0, 0].numel(), channels // groups
    width, columns, each, parts = _divided(clips, positions, channels)
    sums = x.new_empty((clips, parts, 2, channels), dtype=torch.float32)
    scale, offset = x.new_empty((2, clips, channels), dtype=torch.float32)
    y = torch.empty_like(x)
    if shift is not None:
        shift = shift.contiguous()
    grid = (clips, parts, columns)
    _sums[grid](x, sums, positions, channels, each, parts, R=ROWS, C=width)
    _scales[(clips, groups)](
        sums, x, sums if shift is None else shift, weight, bias, scale, offset,
        positions, channels, parts, size, eps,
        SHIFTED=shift is not None,
        P=PARTS,
        K=max(LEAST_GROUP, triton.next_power_of_2(size)),
    )  # fmt: skip
    _apply[grid](x, y, scale, offset, positions, channels, each, R=ROWS, C=width, ACTIVATE=activate)
    return y


@triton.jit(do_not_specialize=["positions"])
def _join(x, onto, bias, positions, channels, each, R: tl.constexpr, C: tl.constexpr):
    """x += onto + bias."""
    part = tl.program_id(0)
    c = tl.program_id(1) * C + tl.arange(0, C)
    is_channel = c < channels
    more = tl.load(bias + c, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    for start in range(0, each, R):
        row = part.to(tl.int64) * each + start + tl.arange(0, R)
        mask = (row < positions)[:, None] & is_channel[None, :]
        at = row[:, None] * channels + c[None, :]
        value = tl.load(x + at, mask=mask, other=0.0).to(tl.float32)
        value += tl.load(onto + at, mask=mask, other=0.0).to(tl.float32) + more
        tl.store(x + at, value.to(x.dtype.element_ty), mask=mask)


def joined(x: Tensor, onto: Tensor, bias: Tensor) -> Tensor:
    """x + ``onto`` + ``bias`` (c), written into ``x``; both (b c ...) have their channels last."""
    channels, positions = x.shape[1], x[:, 0].numel()
    width, columns, each, parts = _divided(1, positions, channels)
    _join[parts, columns](x, onto, bias, positions, channels, each, R=ROWS, C=width)
    return x


def check(device: torch.device) -> None:
    """Raises ArithmeticError where the kernels do not give what PyTorch gives on ``device``."""
    count = torch.arange(2 * 96 * 3 * 5 * 7, device=device, dtype=torch.float32)
    x = channels_last((count.view(2, 96, 3, 5, 7) * 0.7).sin() + 3)
    shift, weight, bias = (count[:n].mul(0.3).cos() for n in (2 * 96, 96, 96))
    shift = shift.view(2, 96)
    expected = F.silu(F.group_norm(x + shift[..., None, None, None], 32, weight, bias, 1e-6))
    error = (normed(x, shift, weight, bias, 32, 1e-6, True) - expected).abs().max().item()
    summed = x + x.flip(0) + bias[:, None, None, None]
    error = max(error, (joined(x.clone(), x.flip(0), bias) - summed).abs().max().item())
    if not error < 1e-4:
        raise ArithmeticError(f"the result differs from PyTorch's by {error}")
