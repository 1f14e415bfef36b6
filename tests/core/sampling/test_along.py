"""Mattes and depth in step with the picture, against those that are true."""

from __future__ import annotations

import math

import pytest
import torch
from made_layers import FRAMES, H, W, bicubic, edge_error, flicker, scene, shrunk

from uav_core import InputError
from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import NeighbourFlow
from uav_core.frames.guided import crisp, enlarged
from uav_core.sampling.along import check_along, enlarged_along


@pytest.fixture(scope="module")
def guides():
    """What an upscaler may have made of it: a little soft, with noise of its own in every frame."""
    picture = scene()[0]
    noise = torch.randn(picture.shape, generator=torch.manual_seed(3))
    soft = torch.nn.functional.avg_pool2d(picture, 3, 1, 1, count_include_pad=False)
    return ((picture + soft) / 2 + 0.02 * noise).clamp(-1, 1)


@pytest.fixture(scope="module")
def flow():
    neighbours, known = NeighbourFlow(BuiltinFlow()), {}

    def between(earlier, later):
        key = float(earlier.sum())
        if key not in known:
            known[key] = tuple(neighbours.both_ways(earlier, later))
        return known[key]

    return between


def along(small, guides, flow):
    return torch.stack(list(enlarged_along(small, guides, flow)))


def alone(small, guides):
    """The same frame by frame."""
    return crisp(enlarged(small, guides), small)


# By how much it is better than bicubic at edges, and steadier than frame by frame.
KINDS = {
    "soft": (2.5, 0.95),
    "noisy": (2.3, 0.85),
    "binary": (5.0, 0.9),
    "depth": (2.0, 1.0),
    "depth at points": (1.8, 0.9),
}


def truth_and_small(kind):
    """The second as keyers, other tools and renderers have it."""
    _, matte, depth = scene()
    if kind == "depth at points":
        return depth, depth[..., 2::4, 2::4]
    if kind == "depth":
        return depth, shrunk(depth)
    small = shrunk(matte)
    if kind == "binary":
        return (matte > 0.5).float(), (small > 0.5).float()
    if kind == "noisy":
        noise = torch.randn(small.shape, generator=torch.manual_seed(4))
        small = (small + 0.06 * noise * (small > 0.02) * (small < 0.98)).clamp(0, 1)
    return matte, small


@pytest.mark.parametrize("kind", KINDS)
def test_edges_are_better_than_bicubic_ones_and_steadier(kind, guides, flow):
    (better, steadier), (truth, small) = KINDS[kind], truth_and_small(kind)
    result = along(small, guides, flow)
    assert result.shape == (FRAMES, 1, H, W)
    assert edge_error(result, truth) * better < edge_error(bicubic(small), truth)
    assert flicker(result, truth) < steadier * flicker(alone(small, guides), truth)
    assert flicker(result, truth) < 0.75 * flicker(bicubic(small), truth)
    shift = (result.mean((1, 2, 3)) - small.mean((1, 2, 3))).abs().max()
    assert shift < (5e-3 if kind == "binary" else 2e-3) * (small.max() - small.min())


def test_a_ramp_stays_one_whatever_is_drawn_on_it(guides):
    ramp = torch.linspace(2, 6, W).expand(FRAMES, 1, H, W)
    result = enlarged(shrunk(ramp), guides)[..., 4:-4]
    assert (result - ramp[..., 4:-4]).abs().max() < 0.02


def test_nothing_lies_beyond_what_is_next_to_it(guides, flow):
    small = shrunk(scene()[2])
    small[:, :, ::5, ::3] += torch.rand(small[:, :, ::5, ::3].shape, generator=torch.manual_seed(0))
    result = along(small, guides, flow)
    around = torch.nn.functional.pad(small, (1,) * 4, mode="replicate")
    for sign in (1, -1):
        most = torch.nn.functional.max_pool2d(sign * around, 3, 1)
        most = most.repeat_interleave(4, -2).repeat_interleave(4, -1)
        assert (sign * result <= most + 1e-6).all()


def test_a_binary_matte_stays_crisp(guides, flow):
    small = (shrunk(scene()[1]) > 0.5).float()
    result = along(small, guides, flow)
    assert result.min() == 0 and result.max() == 1
    between = ((result > 0.02) & (result < 0.98)).float().mean()
    plain = bicubic(small)
    assert between < 0.35 * ((plain > 0.02) & (plain < 0.98)).float().mean()


def test_a_sudden_change_does_not_reach_its_neighbours(guides, flow):
    small = torch.zeros(FRAMES, 1, H // 4, W // 4)
    small[2] = 1
    result = along(small, guides, flow)
    assert torch.equal(result, small[..., :1, :1].expand_as(result))


def test_depth_of_any_range_and_several_channels(guides, flow):
    """Also far values, as renderers have them; the channels are independent of each other."""
    small = shrunk(scene()[2])
    result = along(small, guides, flow)
    both = along(torch.cat([1000 * small, small - 3], dim=1), guides, flow)
    assert torch.allclose(both[:, :1], 1000 * result, rtol=1e-4)
    assert torch.allclose(both[:, 1:], result - 3, atol=1e-4)


def test_one_frame_and_none(guides, flow):
    small = shrunk(scene()[1])
    assert torch.allclose(
        along(small[:1], guides[:1], flow), alone(small[:1], guides[:1]), atol=0.2
    )
    assert list(enlarged_along([], [], flow)) == []


def test_three_frames_are_held(guides, flow):
    read = []

    def reading():
        for number, guide in enumerate(guides):
            read.append(number)
            yield guide

    frames = enlarged_along(shrunk(scene()[1]), reading(), flow)
    next(frames)
    assert read == [0, 1]
    next(frames)
    assert read == [0, 1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_refused(value, guides, flow):
    small = shrunk(scene()[1]).clone()
    small[1, 0, 3, 3] = value
    with pytest.raises(InputError, match="Frame 1 of the matte or depth clip has NaN"):
        along(small, guides, flow)


@pytest.mark.parametrize(("own", "pictures"), [(3, 4), (4, 3)])
def test_clips_of_other_lengths_are_refused(own, pictures, guides, flow):
    with pytest.raises(InputError, match=r"which has 3|only 3 frames"):
        along(shrunk(scene()[1])[:own], guides[:pictures], flow)


@pytest.mark.parametrize(
    ("small", "says"),
    [
        ((3, 24, 32), "3 frames, but the video has 4"),
        ((4, 24, 24), "24x24, but the video is 128x96: expected the same aspect"),
        ((4, 192, 256), "not larger"),
    ],
)
def test_what_does_not_go_together_is_refused(small, says):
    with pytest.raises(InputError, match=says):
        check_along(small, (4, 96, 128), "The matte")


@pytest.mark.parametrize("small", [(4, 24, 32), (4, 96, 128), (4, 13, 17)])
def test_the_same_aspect_within_a_pixel_goes(small):
    check_along(small, (4, 96, 128), "The matte")
