"""Alpha at the upscaled size, against discs whose alpha is known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from uav_core import InputError
from uav_core.frames.alpha import upscale_alpha

SIDE = 128
FRONT, BACK = torch.tensor([0.9, 0.5, 0.2]), torch.tensor([0.1, 0.3, 0.6])


def disc(side: int = SIDE, radius: float = 45.0) -> torch.Tensor:
    """(side, side), 1 inside."""
    place = torch.arange(side) + 0.5 - side / 2
    distance = (place[:, None].square() + place.square()).sqrt()
    return (radius - distance + 0.5).clamp(0, 1)


def scene(alpha: torch.Tensor, texture: float = 0.05, front=FRONT, back=BACK) -> torch.Tensor:
    """Frames (1, h, w, 3) of something in front of something, with alpha, and some texture."""
    frame = alpha[..., None] * front + (1 - alpha[..., None]) * back
    noise = torch.rand(frame.shape, generator=torch.manual_seed(0)) - 0.5
    return (frame + texture * noise).clamp(0, 1)[None]


def small(alpha: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(alpha[None], 4)


def bicubic(alpha: torch.Tensor) -> torch.Tensor:
    return F.interpolate(alpha[None], scale_factor=4, mode="bicubic")[0, 0].clamp(0, 1)


def error(result: torch.Tensor, alpha: torch.Tensor) -> float:
    return float((result - alpha).abs().mean())


def test_edges_are_sharper_than_bicubic_ones():
    alpha = disc()
    (result,) = upscale_alpha(small(alpha), scene(alpha))
    plain = bicubic(small(alpha))
    assert error(result, alpha) < error(plain, alpha) / 4
    steepest = [float(x.diff(dim=1).abs().max()) for x in (result, plain)]
    assert steepest[0] > 2.5 * steepest[1]


def test_without_contrast_it_is_no_worse_than_bicubic():
    alpha = disc()
    (result,) = upscale_alpha(small(alpha), scene(alpha, 0.0, FRONT, FRONT))
    assert error(result, alpha) <= 1.01 * error(bicubic(small(alpha)), alpha)


@pytest.mark.parametrize("texture", [0.0, 0.3, 1.0])
def test_it_stays_between_its_neighbours(texture):
    alpha = disc()
    (result,) = upscale_alpha(small(alpha), scene(alpha, texture))
    assert result.min() >= 0 and result.max() <= 1
    place = torch.arange(SIDE) + 0.5 - SIDE / 2
    distance = (place[:, None].square() + place.square()).sqrt()
    assert (result[distance < 45 - 12] == 1).all()
    assert (result[distance > 45 + 12] == 0).all()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_constant_alpha_stays_constant(value):
    result = upscale_alpha(torch.full((2, 16, 20), value), torch.rand(2, 64, 80, 3))
    assert (result - value).abs().max() < 1e-6


def test_soft_alpha_stays_soft():
    ramp = torch.linspace(0, 1, SIDE).expand(SIDE, SIDE)
    (result,) = upscale_alpha(small(ramp), scene(ramp, 0.02))
    assert (result - ramp).abs().max() < 0.08


def test_other_sizes_than_four_times():
    alpha = disc()
    frames = F.interpolate(scene(alpha).movedim(-1, 1), (100, 74), mode="area").movedim(1, -1)
    result = upscale_alpha(small(alpha), frames)
    assert result.shape == (1, 100, 74)
    expected = F.interpolate(alpha[None, None], (100, 74), mode="area")[0, 0]
    assert error(result[0], expected) < 0.01


@pytest.mark.parametrize(
    ("alpha", "frames", "message"),
    [
        ((2, 8, 8), (3, 32, 32, 3), "2 frames, the upscaled clip 3"),
        ((1, 40, 8), (1, 32, 32, 3), "not smaller than alpha"),
        ((8, 8), (1, 32, 32, 3), "expected"),
        ((1, 8, 8), (1, 32, 32, 1), "expected"),
    ],
)
def test_what_does_not_fit_is_refused(alpha, frames, message):
    with pytest.raises(InputError, match=message):
        upscale_alpha(torch.zeros(alpha), torch.zeros(frames))


def test_cancel_and_progress():
    class Stop(Exception):
        pass

    seen = []

    def stop():
        if len(seen) == 2:
            raise Stop

    clip = torch.zeros(3, 32, 32, 3)
    with pytest.raises(Stop):
        upscale_alpha(
            torch.zeros(3, 8, 8), clip, progress=lambda *x: seen.append(x), check_cancelled=stop
        )
    assert seen == [(1, 3), (2, 3)]
