"""The compared samplers converge on the exact result as fast as their order promises."""

import math

import pytest
import torch

from bench.studies.solvers import SOLVERS

MEAN, SPREAD = 0.3, 0.5


def error(name: str, steps: int) -> float:
    """Largest error for data from a normal distribution, whose ideal denoiser is known."""
    start = torch.linspace(-2, 2, 9, dtype=torch.float64)
    sigmas = torch.logspace(1, -2, steps + 1, dtype=torch.float64).tolist()
    widths = [math.hypot(SPREAD, s) for s in (sigmas[0], sigmas[-1])]
    exact = MEAN + (start * sigmas[0] - MEAN) * widths[1] / widths[0]
    solver, x = SOLVERS[name](), start * sigmas[0]
    for sigma, lower in zip(sigmas[:-1], sigmas[1:], strict=True):  # noqa: RUF007
        clean = (x * SPREAD**2 + MEAN * sigma**2) / (SPREAD**2 + sigma**2)
        x = solver.correct(x, clean, sigma)
        x = solver.step(x, clean, sigma, lower)
    return (x - exact).abs().max().item()


@pytest.mark.parametrize("name, order", [("DDIM", 1), ("DPM++ 2M", 2), ("UniPC", 3)])
def test_order(name, order):
    assert math.log2(error(name, 40) / error(name, 80)) == pytest.approx(order, abs=0.2)
