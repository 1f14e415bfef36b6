"""The compared samplers converge on the exact result as fast as their order promises."""

import math

import pytest
import torch

from bench.studies.solvers import AYS_SIGMAS, SOLVERS, SPACINGS
from uav_core.sampling import schedule

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


@pytest.mark.parametrize("steps", [2, 3, 6, 10, 30])
@pytest.mark.parametrize("name", SPACINGS)
def test_spacings_are_steps_of_the_schedule(name, steps):
    times = SPACINGS[name](steps)
    assert len(times) == steps and (times.diff() < 0).all()
    assert times.min() > 0 and times.max() < schedule.TRAIN_STEPS
    sigmas = schedule.sigmas_at(times)
    assert len(sigmas) == steps + 1 and (sigmas.diff() < 0).all()


def test_even_spacing_has_the_schedules_noise():
    assert torch.equal(schedule.sigmas_at(SPACINGS["even"](6)), schedule.sigmas(6))


def test_align_your_steps_has_the_papers_noise():
    # As near as whole time steps come: 1 % where the noise is large, 4 % at its end.
    assert schedule.sigmas_at(SPACINGS["AYS"](10))[:-1].tolist() == pytest.approx(
        AYS_SIGMAS[:-1], rel=0.04
    )
    # Half as many steps are every second of them.
    assert torch.equal(SPACINGS["AYS"](5), SPACINGS["AYS"](10)[::2])
