"""What a degradation does to pictures whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from uav_core.errors import InputError
from uav_core.training.data.degrade import (
    DegradationParams,
    add_noise,
    blur,
    degrade,
    drifting,
    gaussian_kernels,
    h264,
    jpeg,
)

GENTLE = DegradationParams(
    first_blur=(0.2, 0.2),
    first_scale=(1.0, 1.0),
    second_blur_chance=0,
    noise_chance=0,
    jpeg_chance=0,
    video_chance=0,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def picture(t: int, side: int = 64) -> Tensor:
    """(3, t, side, side): smooth, and every frame brighter than the one before."""
    axis = torch.linspace(-0.6, 0.6, side)
    frame = torch.stack(
        (axis.expand(side, side), axis[:, None].expand(side, side), axis * axis[:, None])
    )
    return torch.stack([frame + 0.05 * i for i in range(t)], dim=1)


@pytest.mark.parametrize("t", [1, 5])
def test_one_seed_gives_one_result_in_range(t):
    clip = picture(t)
    first, second, other = (degrade(clip, rng(seed)) for seed in (3, 3, 4))
    assert first.shape == (3, t, 16, 16)
    assert torch.equal(first, second)
    assert not torch.allclose(first, other)
    assert first.abs().max() <= 1


def test_nothing_drawn_is_a_plain_shrinking():
    clip = picture(4)
    small = torch.nn.functional.avg_pool3d(clip[None], (1, 4, 4))[0]
    assert (degrade(clip, rng(), GENTLE) - small).abs().max() < 0.03


@pytest.mark.parametrize("seed", range(6))
def test_any_drawing_stays_the_same_clip(seed):
    clip = picture(6)
    small = torch.nn.functional.avg_pool3d(clip[None], (1, 4, 4))[0]
    out = degrade(clip, rng(seed))
    # Frame by frame, in order, with colours in their places.
    assert (out.mean(dim=(2, 3)) - small.mean(dim=(2, 3))).abs().max() < 0.05
    assert (out - small).abs().mean() < 0.12


def test_more_noise_and_more_blur_are_further_away():
    clip = picture(3) + 0.2 * torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain = degrade(clip, rng(), GENTLE)

    def distance(**change: object) -> float:
        return float((degrade(clip, rng(), replace(GENTLE, **change)) - plain).abs().mean())

    few, much = (distance(noise_chance=1.0, noise=(s, s)) for s in (2.0, 20.0))
    assert 0 < few < much
    soft, softer = (distance(first_blur=(s, s)) for s in (1.0, 4.0))
    assert 0 < soft < softer


def test_blur_keeps_flat_pictures_and_kernels_sum_to_one():
    kernels = gaussian_kernels(np.array([0.5, 2.0]), np.array([0.5, 1.0]), np.array([0.0, 0.7]), 5)
    assert torch.allclose(kernels.sum(dim=(1, 2)), torch.ones(2), atol=1e-5)
    assert kernels[0, 5, 5] > kernels[1, 5, 5]
    flat = torch.full((2, 3, 16, 16), 0.4)
    assert torch.allclose(blur(flat, rng(), (0.5, 2.0), 0.1), flat, atol=1e-5)


def test_noise_has_the_spread_that_was_asked_for():
    p = replace(DegradationParams(), noise=(10.0, 10.0), noise_chance=1.0, grey_noise_chance=0.0)
    flat = torch.full((4, 3, 64, 64), 0.5)
    # A half-lit sensor is as noisy as the plain kind: sqrt(2 * 0.5) = 1.
    for seed in range(4):
        assert float((add_noise(flat, rng(seed), p) - flat).std()) == pytest.approx(
            10 / 255, rel=0.05
        )


def test_settings_drift_in_a_line_and_stay_inside():
    values = drifting(rng(1), (10.0, 20.0), 9, 0.15)
    assert np.allclose(np.diff(values, 2), 0)
    assert values.min() >= 10 and values.max() <= 20 and np.ptp(values) <= 1.5


def test_codecs_keep_the_frames_in_order():
    frames = picture(7).transpose(0, 1).add(1).div(2)
    for out in (h264(frames, 20), jpeg(frames, np.full(7, 90.0))):
        assert out.shape == frames.shape
        assert (out - frames).abs().mean() < 0.03
        assert (out.mean(dim=(1, 2, 3)).diff() > 0).all()


def test_a_higher_rate_factor_costs_more_detail():
    noisy = (
        (picture(4) + 0.3 * torch.randn(3, 4, 64, 64)).clamp(-1, 1).transpose(0, 1).add(1).div(2)
    )
    fine, coarse = ((h264(noisy, crf) - noisy).abs().mean() for crf in (12, 40))
    assert fine < coarse


def test_sides_that_codecs_refuse_are_refused_first():
    with pytest.raises(InputError, match="multiples of 8"):
        degrade(torch.zeros(3, 1, 60, 64), rng())
