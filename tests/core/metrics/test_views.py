"""Pictures for looking at, with known contents."""

from __future__ import annotations

import colorsys
import math
from itertools import pairwise

import pytest
import torch

from uav_core import InputError
from uav_core.metrics import (
    difference,
    divided,
    flow_picture,
    longest_motion,
    thumbnail,
    validity,
)


def constant(dx: float, dy: float, t: int = 2, h: int = 20, w: int = 24) -> torch.Tensor:
    """A flow (1, 2, t, h, w) that is the same everywhere."""
    return torch.tensor([float(dx), float(dy)]).view(1, 2, 1, 1, 1).repeat(1, 1, t, h, w)


def hue(picture: torch.Tensor) -> float:
    """Of a picture's first pixel, 0 to 1."""
    return colorsys.rgb_to_hsv(*picture[0, :, 0, 0, 0].add(1).div(2).tolist())[0]


def saturation(picture: torch.Tensor) -> float:
    return colorsys.rgb_to_hsv(*picture[0, :, 0, 0, 0].add(1).div(2).tolist())[1]


def test_hue_is_the_direction():
    hues = [
        hue(flow_picture(constant(3 * math.cos(a), 3 * math.sin(a)), 3.0))
        for a in torch.arange(0, 2 * math.pi, math.pi / 4).tolist()
    ]
    apart = [min((b - a) % 1, (a - b) % 1) for a, b in pairwise(hues)]
    assert min(apart) > 0.03
    assert hue(flow_picture(constant(1, 0), 3.0)) == pytest.approx(
        hue(flow_picture(constant(3, 0), 3.0)), abs=0.02
    )


def test_strength_is_the_length_and_rest_is_white():
    assert (flow_picture(constant(0, 0)) > 0.98).all()
    values = [saturation(flow_picture(constant(length, 0), 4.0)) for length in (1, 2, 4, 40)]
    assert values[0] < values[1] < values[2] == values[3]
    assert values[1] == pytest.approx(0.5, abs=0.03)


def test_the_scale_is_that_of_all_frames():
    flow = torch.cat([constant(1, 0), constant(4, 0)], dim=2)
    picture = flow_picture(flow)
    assert longest_motion(flow) == pytest.approx(4)
    assert saturation(picture) == pytest.approx(0.25, abs=0.03)


def test_a_few_wrong_vectors_do_not_wash_out_the_rest():
    flow = constant(2, 0, h=100, w=100)
    flow[..., 0, 0] = 500
    assert longest_motion(flow) == pytest.approx(2)
    assert longest_motion(constant(0.1, 0)) == 1
    assert longest_motion(constant(0, 0, t=0)) == 1


def test_motion_that_does_not_lead_back_is_not_trusted():
    forward, backward = constant(2, 0), constant(-2, 0)
    backward[..., :10] = 5
    trusted = validity(forward, backward)
    assert trusted.shape == (1, 1, 2, 20, 24) and trusted.dtype == torch.bool
    assert trusted[..., 10:22].all() and not trusted[..., :8].any()
    assert validity(constant(0, 0, t=0), constant(0, 0, t=0)).shape == (1, 1, 0, 20, 24)


@pytest.mark.parametrize(
    ("apart", "factor"), [(0.0, 100), (0.004, 100), (0.04, 20), (0.3, 2), (0.9, 1)]
)
def test_differences_are_brightened_as_far_as_they_fit(apart, factor):
    first = torch.full((1, 3, 2, 16, 16), -0.8)
    picture, chosen = difference(first, first + 2 * apart)
    assert chosen == factor
    assert (picture - (2 * min(1, apart * factor) - 1)).abs().max() < 1e-4


def test_a_given_factor_is_kept_and_single_values_do_not_choose():
    first = torch.zeros(1, 3, 1, 100, 100)
    second = first.clone()
    second[..., 0, 0] = 1
    assert difference(first, second)[1] == 100
    picture, factor = difference(first, first + 0.1, 3.0)
    assert factor == 3 and float(picture.mean()) == pytest.approx(2 * 0.05 * 3 - 1)


@pytest.mark.parametrize("position", [0.0, 0.3, 1.0])
def test_the_line_divides(position):
    before, after = torch.full((1, 3, 2, 8, 40), -0.5), torch.full((1, 3, 2, 8, 40), 0.5)
    picture = divided(before, after, position)
    edge = round(40 * position)
    assert (picture[..., : max(0, edge - 1)] == -0.5)[..., :-2].all()
    assert (picture[..., edge + 2 :] == 0.5).all()
    assert ((picture == 1).sum(dim=-1) == 2).all()


def test_thumbnails_keep_aspect_and_brightness():
    picture = torch.full((3, 90, 160), 0.25)
    small = thumbnail(picture, 30)
    assert small.shape == (3, 30, 53)
    assert (small - 0.25).abs().max() < 1e-5


def test_other_shapes_are_refused():
    clip = torch.zeros(1, 3, 2, 8, 8)
    with pytest.raises(InputError, match="flow is"):
        flow_picture(clip)
    for make in (difference, divided):
        with pytest.raises(InputError, match="expected the same"):
            make(clip, clip[..., 1:])
