"""What a degradation does to pictures whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from uav_core.errors import InputError
from uav_core.training.data.degrade import (
    MILD,
    OLD,
    DegradationParams,
    add_noise,
    bleed,
    blur,
    degrade,
    drifting,
    gaussian_kernels,
    h264,
    interlace,
    jpeg,
    random_degradation,
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


def test_a_third_is_mild_and_a_third_is_old():
    drawn = [random_degradation(rng(seed)) for seed in range(300)]
    kinds = {
        "clean": MILD["clean"],
        "web": MILD["web"],
        "old": OLD,
        "damaged": DegradationParams(),
    }
    counts = {name: drawn.count(kind) for name, kind in kinds.items()}
    assert sum(counts.values()) == 300
    assert counts["clean"] + counts["web"] == pytest.approx(100, abs=25)
    assert counts["old"] == pytest.approx(100, abs=25)


def test_old_footage_costs_more_than_mild():
    clip = picture(4) + 0.1 * torch.randn(3, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    small = torch.nn.functional.avg_pool3d(clip[None], (1, 4, 4))[0]

    def distance(kind: DegradationParams) -> float:
        return sum(float((degrade(clip, rng(s), kind) - small).abs().mean()) for s in range(6))

    assert distance(MILD["clean"]) < distance(OLD)


def test_colours_run_along_the_lines_and_brightness_stays():
    frames = torch.full((2, 3, 8, 32), 0.5)
    frames[:, 0, :, :16], frames[:, 2, :, :16] = 0.9, 0.1
    out = bleed(frames, np.array([1.5, 1.5]), 2.0)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert torch.allclose((out * weights).sum(1), (frames * weights).sum(1), atol=1e-6)
    red = (out - (out * weights).sum(1, keepdim=True))[0, 0, 4]
    edge = (red - red[-1]) / (red[0] - red[-1])
    # Spread over several pixels, and late: half way two pixels to the right of the edge.
    assert edge[15] < 1 and edge[18] > 0.02
    assert float(edge[17]) == pytest.approx(0.5, abs=0.15)
    assert torch.allclose(out.mean(dim=2, keepdim=True).expand_as(out), out, atol=1e-6)


def test_interlaced_lines_are_of_the_next_moment():
    frames = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 3, 6, 4)
    out = interlace(frames, 0.5, field=1)
    assert torch.equal(out[:, :, ::2], frames[:, :, ::2])
    assert torch.equal(out[:, 0, 1, 0], torch.tensor([0.5, 1.5, 2.0]))
