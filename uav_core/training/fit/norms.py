"""The ``Way`` of a GPU in training: norm and SiLU in one pass that keeps the layout.

PyTorch's own GroupNorm converts to fp32 and to the plain layout: about 80 bytes of memory traffic
per value, forward and backward, against about 16 here. Without Triton, PyTorch's operations do it.
"""

# pyright: reportIndexIssue=false

from __future__ import annotations

import math
import subprocess
import sys
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...devices.gpu import GPUWay
from ...devices.layout import by_channel, channels_last
from ...devices.way import Way
from .processes import module_process

PREPARED = ((64,), (96, 128), (160, 192))
"""Channels of layers whose kernels are prepared, one process for each tuple."""


def _power(n: int) -> int:
    return 1 << (n - 1).bit_length()


class NormSiLU(torch.autograd.Function):
    """GroupNorm of x (b c ...) in channels-last layout, followed by SiLU if ``act``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, act: bool,
        triton: bool,
    ) -> Tensor:  # fmt: skip
        """``triton``: use the Triton kernels, else PyTorch's operations, on any device."""
        b, c = x.shape[:2]
        size, n = c // groups, float(x.numel() // (b * groups))
        if triton:
            from . import kernels

            rows, each, parts = _division(x, kernels.ROWS)
            part, scale, shift = _new(x, b, parts, 2, c), _new(x, b, c), _new(x, b, c)
            mean, rate = _new(x, b, groups), _new(x, b, groups)
            y, wide = torch.empty_like(x), {"CP": _power(c), "BS": kernels.ROWS}
            grid = (b, parts)
            kernels.sums[grid](x, part, rows, parts, each, c, **wide)
            kernels.scales[(b,)](
                part, weight, bias, scale, shift, mean, rate, parts, n, eps, c, groups, size,
                GP=_power(groups), KP=_power(size),
            )  # fmt: skip
            kernels.apply[grid](x, y, scale, shift, rows, each, c, **wide, ACT=act)
        else:
            axes = tuple(range(2, x.ndim))
            total = x.sum(axes, dtype=torch.float32).view(b, groups, size).sum(2)
            squares = torch.linalg.vector_norm(x, 2, axes, dtype=torch.float32).square()
            mean = total / n
            variance = squares.view(b, groups, size).sum(2) / n - mean.square()
            rate = variance.clamp_min(0).add(eps).rsqrt()
            scale = weight * rate.repeat_interleave(size, 1)
            shift = bias - mean.repeat_interleave(size, 1) * scale
            y = _affine(x, scale, shift)
            y = F.silu(y) if act else y
        ctx.save_for_backward(x, weight, scale, shift, mean, rate)
        ctx.groups, ctx.act, ctx.triton = groups, act, triton
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, shift, mean, rate = ctx.saved_tensors
        b, c = x.shape[:2]
        groups, size = ctx.groups, c // ctx.groups
        n = float(x.numel() // (b * groups))
        dy = channels_last(grads[0].to(x.dtype))
        if ctx.triton:
            from . import kernels

            rows, each, parts = _division(x, kernels.ROWS)
            part, kb, kc = _new(x, b, parts, 2, c), _new(x, b, c), _new(x, b, c)
            dw, db = _new(x, b, c), _new(x, b, c)
            dx, wide = torch.empty_like(x), {"CP": _power(c), "BS": kernels.ROWS}
            grid = (b, parts)
            kernels.back_sums[grid](
                x, dy, part, scale, shift, rows, parts, each, c, **wide, ACT=ctx.act
            )
            kernels.back_scales[(b,)](
                part, weight, mean, rate, kb, kc, dw, db, parts, n, c, groups, size,
                GP=_power(groups), KP=_power(size),
            )  # fmt: skip
            kernels.back[grid](x, dy, dx, scale, shift, kb, kc, rows, each, c, **wide, ACT=ctx.act)
            return dx, dw.sum(0), db.sum(0), None, None, None, None
        axes = tuple(range(2, x.ndim))
        if ctx.act:
            dy = torch.ops.aten.silu_backward(dy, _affine(x, scale, shift))
        s = dy.sum(axes, dtype=torch.float32)
        q = (dy * x).sum(axes, dtype=torch.float32)

        def each_channel(v: Tensor) -> Tensor:
            return v.repeat_interleave(size, 1)

        p = (q - each_channel(mean) * s) * each_channel(rate)
        a1 = (weight * s).view(b, groups, size).sum(2) / n
        a2 = (weight * p).view(b, groups, size).sum(2) / n
        kb, kc = -rate * rate * a2, -rate * a1 + rate * rate * a2 * mean
        dx = _affine(dy, scale, each_channel(kc)) + _affine(
            x, each_channel(kb), torch.zeros_like(scale)
        )
        return dx.to(x.dtype), p.sum(0), s.sum(0), None, None, None, None


def _new(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=x.device)


def _division(x: Tensor, rows: int) -> tuple[int, int, int]:
    """Positions of a clip, positions of a program, and programs for a clip."""
    b, c = x.shape[:2]
    positions = x.numel() // (b * c)
    parts = max(1, min(64, math.ceil(positions / 256), max(1, 2048 // b)))
    each = math.ceil(math.ceil(positions / parts) / rows) * rows
    return positions, each, math.ceil(positions / each)


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    shape = (*scale.shape, *[1] * (x.ndim - 2))
    return torch.addcmul(shift.view(shape).to(x.dtype), x, scale.view(shape).to(x.dtype))


class TrainingWay(GPUWay):
    """A GPU's ``Way`` with norms that have gradients."""

    def __init__(self, triton: bool) -> None:
        self.triton = triton

    def _norm(self, norm: Any, x: Tensor, act: bool) -> Tensor:
        if x.shape[1] % 16 or norm.weight.dtype != torch.float32:
            # Contiguous: for channels-last PyTorch's gradient can crash on a CPU.
            y = F.group_norm(x.contiguous(), norm.num_groups, norm.weight, norm.bias, norm.eps)
            return channels_last(F.silu(y) if act else y)
        given = channels_last(x)
        return NormSiLU.apply(
            given, norm.weight, norm.bias, norm.num_groups, norm.eps, act, self.triton
        )  # type: ignore[return-value]

    def unbiased(
        self, conv: nn.Module, x: Tensor, rest: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        return Way.unbiased(self, conv, x, rest)

    def summed(
        self, conv: nn.Module, h: Tensor, x: Tensor, shortcut: nn.Module | None = None
    ) -> Tensor:
        return Way.summed(self, conv, h, x, shortcut)

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        return self._norm(norm, x, False)

    def activated(self, norm: nn.Module, x: Tensor, shift: Tensor | None = None) -> Tensor:
        if shift is not None:
            x = x + by_channel(shift, x).to(x.dtype)
        return self._norm(norm, x, True)


# ---------------------------------------------------------------- preparing the kernels


def check(device: torch.device, channels: int, dtype: torch.dtype, triton: bool) -> float:
    """The largest relative error of results and gradients against PyTorch's own norm."""
    torch.manual_seed(0)
    worst = 0.0
    for shape in ((2, channels, 3, 20, 24), (3, channels, 9, 7), (2, channels, 2, 4, 4)):
        for act in (True, False):
            x = channels_last(torch.randn(shape, device=device) * 1.5 + 0.7).to(dtype)
            w, b = (torch.randn(channels, device=device) + 1 for _ in range(2))
            dy = channels_last(torch.randn(shape, device=device)).to(dtype)
            mine = [t.detach().clone().requires_grad_() for t in (x, w, b)]
            y: Any = NormSiLU.apply(*mine, 32, 1e-6, act, triton)
            y.backward(dy)
            ref = [t.detach().float().clone().requires_grad_() for t in (x, w, b)]
            z = F.group_norm(ref[0], 32, ref[1], ref[2], 1e-6)
            z = F.silu(z) if act else z
            z.backward(dy.float())
            pairs = [
                (y.detach(), z.detach()),
                *((a.grad, r.grad) for a, r in zip(mine, ref, strict=True)),
            ]
            for a, r in pairs:
                assert a is not None and r is not None
                worst = max(worst, float((a.float() - r).norm() / r.norm()))
    return worst


class Preparation:
    """Compiles and checks the kernels in separate processes, so that failures do no harm."""

    def __init__(self, device: str) -> None:
        self.processes = [
            module_process(__spec__.name, [device, *map(str, widths)], stdout=subprocess.DEVNULL)
            for widths in PREPARED
        ]

    def succeeds(self, seconds: float) -> bool:
        """Whether all checks passed within ``seconds``; slower processes are killed."""
        fine, until = True, time.monotonic() + seconds
        for process in self.processes:
            try:
                left = max(until - time.monotonic(), 0.1)
                fine = process.wait(timeout=left) == 0 and fine
            except subprocess.TimeoutExpired:
                process.kill()
                fine = False
        return fine


def main() -> int:
    """Compile and check the kernels; arguments: DEVICE, then numbers of channels."""
    device, widths = torch.device(sys.argv[1]), map(int, sys.argv[2:])
    errors = [check(device, channels, torch.bfloat16, True) for channels in widths]
    return 0 if max(errors) < 0.02 else 1


if __name__ == "__main__":
    raise SystemExit(main())
