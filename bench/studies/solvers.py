"""Samplers with a common interface, to compare their quality at few steps.

All work on the variance-exploding sample X = x / sqrt(a), whose noise is sigma. ``step`` goes from
``sigma`` to ``lower``, given the predicted clean latent. Sources: DDIM (Song et al. 2021), DPM++ 2M
(Lu et al. 2022), UniPC of order 2 with B(h) = e^h - 1 (Zhao et al. 2023).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


class DDIM:
    """First order."""

    def correct(self, x: Tensor, clean: Tensor, sigma: float) -> Tensor:
        """Correct the sample at ``sigma`` by the new prediction there."""
        return x

    def step(self, x: Tensor, clean: Tensor, sigma: float, lower: float) -> Tensor:
        """The sample at ``lower``."""
        return clean + (lower / sigma) * (x - clean)


class DPMSolver2M(DDIM):
    """Second order, from the last two predictions."""

    def __init__(self) -> None:
        self.before: tuple[Tensor, float] | None = None

    def step(self, x: Tensor, clean: Tensor, sigma: float, lower: float) -> Tensor:
        h = math.log(sigma / lower)
        guess = clean
        if self.before is not None:
            earlier, higher = self.before
            guess = clean + (clean - earlier) * h / (2 * math.log(higher / sigma))
        self.before = (clean, sigma)
        return (lower / sigma) * x - math.expm1(-h) * guess


class UniPC(DDIM):
    """Second order, each sample corrected by the prediction made at it."""

    def __init__(self) -> None:
        self.past: list[tuple[Tensor, float]] = []
        self.start: Tensor | None = None

    def correct(self, x: Tensor, clean: Tensor, sigma: float) -> Tensor:
        if self.start is None:
            return x
        model, above = self.past[-1]
        h = -math.log(above / sigma)
        phi = math.expm1(h)
        base = (sigma / above) * self.start - phi * model
        change = clean - model
        if len(self.past) == 1:
            return base - phi * 0.5 * change
        earlier, highest = self.past[-2]
        ratio = math.log(highest / above) / h  # negative: the earlier one has more noise
        first = phi / h - 1
        second = 2 * (first / h - 0.5)
        matrix = torch.tensor([[1.0, 1.0], [ratio, 1.0]], dtype=torch.float64)
        aim = torch.tensor([first / phi, second / phi], dtype=torch.float64)
        a, b = torch.linalg.solve(matrix, aim).tolist()
        return base - phi * (a * (earlier - model) / ratio + b * change)

    def step(self, x: Tensor, clean: Tensor, sigma: float, lower: float) -> Tensor:
        h = -math.log(sigma / lower)
        phi = math.expm1(h)
        out = (lower / sigma) * x - phi * clean
        if self.past:
            earlier, above = self.past[-1]
            ratio = math.log(above / sigma) / h
            out = out - phi * 0.5 * (earlier - clean) / ratio
        self.past = [*self.past[-1:], (clean, sigma)]
        self.start = x
        return out


SOLVERS: dict[str, type[DDIM]] = {"DDIM": DDIM, "DPM++ 2M": DPMSolver2M, "UniPC": UniPC}
