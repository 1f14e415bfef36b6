"""Sizes other than 4x: the geometry is checked on pictures whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from uav_core import InputError
from uav_core.frames.output_size import OutputSize, after, before, plan_size, resized


def upscaled(frames: torch.Tensor) -> torch.Tensor:
    """Four times as large: what the model does, without its detail."""
    # Bilinear, which keeps a ramp a ramp; torch's bicubic without antialias does not.
    large = F.interpolate(
        frames.movedim(-1, 1), scale_factor=4, mode="bilinear", align_corners=False
    )
    return large.movedim(1, -1)


def run(frames: torch.Tensor, wanted: OutputSize, shrink: bool) -> torch.Tensor:
    """Frames through the plan around a 4x, or after it alone."""
    if shrink:
        plan = plan_size(frames.shape[1], frames.shape[2], wanted)
        small = before(frames, plan)
        assert tuple(small.shape[1:3]) == plan.given
        return after(upscaled(small), plan)
    large = upscaled(frames)
    return after(large, plan_size(large.shape[1], large.shape[2], wanted, upscaled=True))


def disc(h: int, w: int, radius: float) -> torch.Tensor:
    """IMAGE (1, h, w, 3) of a soft disc in the middle."""
    y = torch.arange(h)[:, None] + 0.5 - h / 2
    x = torch.arange(w)[None] + 0.5 - w / 2
    return (
        (radius - (x.square() + y.square()).sqrt())
        .add(0.5)
        .clamp(0, 1)[None, ..., None]
        .repeat(1, 1, 1, 3)
    )


def shape_of(picture: torch.Tensor) -> tuple[float, float, float, float]:
    """Centre (y, x) and spread (y, x) of what is bright in (h, w, c), in pixels."""
    grey = picture.mean(-1)
    y, x = (torch.arange(n) + 0.5 for n in grey.shape)
    rows, columns, total = grey.sum(1), grey.sum(0), grey.sum()
    cy, cx = float((rows * y).sum() / total), float((columns * x).sum() / total)
    vy, vx = (rows * (y - cy) ** 2).sum() / total, (columns * (x - cx) ** 2).sum() / total
    return cy, cx, math.sqrt(vy), math.sqrt(vx)


WANTED = [
    OutputSize("factor", factor=1.0),
    OutputSize("factor", factor=1.7),
    OutputSize("factor", factor=4.0),
    OutputSize("short side", short_side=90),
    OutputSize("exact size", width=150, height=100, aspect="fit"),
    OutputSize("exact size", width=101, height=131, aspect="pad", even=False),
    OutputSize("exact size", width=130, height=130, aspect="crop"),
    OutputSize("exact size", width=400, height=600, aspect="crop"),
    OutputSize("exact size", width=600, height=400, aspect="pad"),
]


@pytest.mark.parametrize("shrink", [True, False])
@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_a_circle_stays_a_circle_in_the_middle(wanted, shrink):
    h, w, radius = 60, 90, 20
    (result,) = run(disc(h, w, radius), wanted, shrink)
    rows, columns = result.shape[:2]
    cy, cx, sy, sx = shape_of(result)
    assert sy == pytest.approx(sx, rel=0.012)
    assert (cy, cx) == pytest.approx((rows / 2, columns / 2), abs=1.6)
    zoom = {
        "factor": wanted.factor,
        "short side": wanted.short_side / h,
        "exact size": (max if wanted.aspect == "crop" else min)(rows / h, columns / w),
    }[wanted.target]
    assert sy == pytest.approx(zoom * radius / 2, rel=0.025)


@pytest.mark.parametrize("shrink", [True, False])
@pytest.mark.parametrize("factor", [1.0, 1.37, 2.0, 3.1, 4.0])
def test_a_ramp_lies_where_it_should(factor, shrink):
    """Pixel x of the result shows what is at (x + 0.5) / zoom - 0.5 of the input."""
    h, w = 40, 64
    ramp = (torch.arange(w) / w).expand(2, h, w)[..., None].repeat(1, 1, 1, 3)
    result = run(ramp, OutputSize("factor", factor=factor, even=False), shrink)
    width = round(factor * w)
    assert result.shape == (2, round(factor * h), width, 3)
    expected = ((torch.arange(width) + 0.5) / (width / w) - 0.5) / w
    inside = slice(width // 6, -width // 6)
    assert (result[0, 5, inside, 0] - expected[inside]).abs().max() < 0.05 / w


def test_the_model_gets_no_more_than_it_needs():
    plan = plan_size(180, 320, OutputSize("factor", factor=2.0))
    assert plan.given == (90, 160) and plan.size == (360, 640)
    plan = plan_size(270, 480, OutputSize("exact size", width=1000, height=1000, aspect="crop"))
    assert plan.given == (250, 250) and plan.size == (1000, 1000)
    plan = plan_size(100, 200, OutputSize("exact size", width=400, height=400, aspect="pad"))
    assert plan.given == (50, 100) and plan.picture == (200, 400) and plan.size == (400, 400)


def test_what_is_no_multiple_of_four_is_padded_and_cut_off_again():
    plan = plan_size(300, 500, OutputSize("factor", factor=1.02))
    assert plan.size == (306, 510)
    assert plan.given == (77, 128) and plan.upscaled == (308, 512)
    assert plan.content == plan.picture == (306, 510)  # nothing is resampled a second time


def test_more_than_four_times_is_made_afterwards():
    plan = plan_size(50, 50, OutputSize("short side", short_side=300))
    assert plan.given == (50, 50) and plan.content == (200, 200) and plan.size == (300, 300)


def test_nothing_gets_too_small_for_the_model():
    plan = plan_size(20, 60, OutputSize("factor", factor=1.0))
    assert min(plan.given) == 16 and plan.size == (20, 60)
    assert plan.given[1] / plan.given[0] == pytest.approx(3, rel=0.02)


def test_sides_are_even_unless_asked_otherwise():
    wanted = {"target": "factor", "factor": 1.5}
    assert plan_size(33, 35, OutputSize(**wanted)).size == (50, 52)
    assert plan_size(34, 35, OutputSize(**wanted, even=False)).size == (51, 52)
    exact = OutputSize("exact size", width=99, height=51, aspect="stretch", even=False)
    assert plan_size(40, 40, exact).size == (51, 99)


def test_bars_are_black_and_the_picture_is_whole():
    frames = torch.ones(1, 40, 80, 4)
    plan = plan_size(40, 80, OutputSize("exact size", width=160, height=160, aspect="pad"))
    result = after(upscaled(before(frames, plan)), plan)
    assert result.shape == (1, 160, 160, 4)
    assert result[0, :40].abs().max() == 0 and result[0, 120:].abs().max() == 0
    assert (result[0, 40:120] - 1).abs().max() < 1e-5


def test_four_times_is_left_as_it_is():
    frames = torch.rand(3, 20, 30, 3)
    plan = plan_size(20, 30, OutputSize("factor", factor=4.0))
    assert torch.equal(before(frames, plan), frames)
    large = upscaled(frames)
    assert torch.equal(after(large, plan), large)


def test_shrinking_counts_every_pixel():
    """By area: the mean of fine detail stays, where plain interpolation would skip pixels."""
    lines = torch.zeros(64, 64, 1)
    lines[:, ::8] = 1
    assert float(resized(lines, 64, 8).mean()) == pytest.approx(1 / 8, abs=0.003)
    assert float(resized(lines, 64, 8).std()) < 0.03


def test_every_frame_is_its_own():
    frames = torch.rand(4, 32, 48, 3)
    plan = plan_size(32, 48, OutputSize("factor", factor=1.3))
    whole = before(frames, plan)
    for i in range(4):
        assert torch.equal(before(frames[i : i + 1], plan)[0], whole[i])


def test_frames_of_another_size_are_refused():
    plan = plan_size(40, 80, OutputSize("factor", factor=2.0))
    with pytest.raises(InputError, match=r"are 80x41.*made for 80x40"):
        before(torch.zeros(1, 41, 80, 3), plan)
    with pytest.raises(InputError, match=r"are 80x40.*upscaled from 40x20 to 160x80"):
        after(torch.zeros(1, 40, 80, 3), plan)
    done = torch.zeros(1, 90, 60, 3)
    small = plan_size(160, 160, OutputSize("exact size", width=60, height=90, aspect="crop"))
    assert after(done, small) is done


@pytest.mark.parametrize(
    "wrong",
    [
        {"factor": 0.5},
        {"factor": 4.1},
        {"factor": math.nan},
        {"short_side": 8},
        {"width": 0},
        {"target": "area"},
        {"aspect": "letterbox"},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        OutputSize(**wrong)


def test_cancel_goes_through():
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    plan = plan_size(40, 80, OutputSize("factor", factor=2.0))
    with pytest.raises(Stop):
        before(torch.zeros(1, 40, 80, 3), plan, stop)
