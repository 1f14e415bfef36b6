import pytest
import torch
from generated import det, golden

from uav_core import InputError, propagate
from uav_core.sampling.propagation import (
    PropagationParams,
    consistent,
    falls_between_steps,
    parse_steps,
    warp,
)

GOLDEN = golden()


def test_golden():
    name = "propagate/6x12x16"
    out = propagate(
        det(f"{name}/x0", (1, 4, 6, 12, 16)),
        GOLDEN[f"{name}/flow_forward"],
        GOLDEN[f"{name}/flow_backward"],
    )
    torch.testing.assert_close(out, GOLDEN[f"{name}/out"], rtol=1e-4, atol=1e-4)


def test_one_frame_is_left_alone():
    x0 = det("x0", (1, 4, 1, 5, 7))
    none = torch.zeros(1, 2, 0, 5, 7)
    assert torch.equal(propagate(x0, none, none), x0)


def test_input_is_not_written_to():
    x0 = det("x0", (1, 4, 3, 5, 7))
    kept, still = x0.clone(), torch.zeros(1, 2, 2, 5, 7)
    propagate(x0, still, still)
    assert torch.equal(x0, kept)


def test_still_scene_by_hand():
    # Two frames, no motion: backward gives (x0 + x1) / 2 to frame 0, forward takes half of that.
    x0 = det("x0", (1, 1, 2, 4, 4))
    still = torch.zeros(1, 2, 1, 4, 4)
    out = propagate(x0, still, still)
    first = (x0[:, :, 0] + x0[:, :, 1]) / 2
    torch.testing.assert_close(out[:, :, 0], first)
    torch.testing.assert_close(out[:, :, 1], (first + x0[:, :, 1]) / 2)


def test_inconsistent_flow_changes_nothing():
    x0 = det("x0", (1, 4, 3, 6, 6))
    right = torch.ones(1, 2, 2, 6, 6) * 2
    assert torch.equal(propagate(x0, right, right), x0)


def test_strength_zero_and_thresholds():
    x0, still = det("x0", (1, 4, 3, 6, 6)), torch.zeros(1, 2, 2, 6, 6)
    assert torch.equal(propagate(x0, still, still, PropagationParams(strength=0)), x0)
    strict = PropagationParams(relative_threshold=0, absolute_threshold=0)
    assert torch.equal(propagate(x0, still, still, strict), x0)


def test_warp_follows_the_flow_and_is_zero_outside():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1
    out = warp(x, flow, "nearest")
    assert torch.equal(out[..., :3], x[..., 1:])
    assert torch.equal(out[..., 3], torch.zeros(1, 1, 3))


@pytest.mark.parametrize("size", [(5, 7), (16, 33), (180, 320)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_warp_has_the_bits_of_kornia(size, mode):
    remap = pytest.importorskip("kornia.geometry.transform").remap
    # Halves and quarters of pixels: where the nearest one is decided by the rounding.
    x, flow = det("x", (2, 4, *size)), (det("flow", (2, 2, *size)) * 20).round() / 4
    columns = torch.arange(size[1]) + flow[:, 0]
    rows = torch.arange(size[0])[:, None] + flow[:, 1]
    assert torch.equal(warp(x, flow, mode), remap(x, columns, rows, mode=mode, align_corners=True))


def test_flow_that_returns_is_consistent():
    f = torch.zeros(1, 2, 6, 6)
    f[:, 0] = 1
    ok = consistent(f, -f, PropagationParams())
    assert ok[..., :5].all()
    assert not ok[..., 5].any()


def test_flow_of_another_clip_is_named():
    with pytest.raises(InputError, match="forward flow"):
        propagate(
            det("x0", (1, 4, 3, 6, 6)), torch.zeros(1, 2, 3, 6, 6), torch.zeros(1, 2, 2, 6, 6)
        )


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("24,26,28", 30, (24, 26, 28)),
        (" 28, 24 ,24", 30, (24, 28)),
        ("last 3", 30, (27, 28, 29)),
        ("Last 1, 0", 4, (0, 3)),
        ("80%-95%", 20, (16, 17, 18)),
        ("80%-95%", 4, (3,)),
        ("80%-95%", 1, (0,)),
        ("95%-100%", 10, (9,)),
        ("0%-100%", 4, (0, 1, 2, 3)),
        ("50%", 30, (15,)),
        ("100%", 30, (29,)),
        ("3-5", 30, (3, 4, 5)),
        ("", 30, ()),
        ("last 0", 30, ()),
        ("last 3", 1, (0,)),
    ],
)
def test_steps(text, steps, expected):
    assert parse_steps(text, steps) == expected
    parse_steps(text)


@pytest.mark.parametrize(
    ("text", "steps", "between"),
    [
        ("80%-95%", 4, True),
        ("0, 95%-100%", 10, True),
        ("80%-95%", 20, False),
        ("80%", 4, False),
        ("80%-80%", 4, False),
        ("1-3, last 2", 4, False),
    ],
)
def test_ranges_in_which_no_step_starts_are_told(text, steps, between):
    assert falls_between_steps(text, steps) is between


@pytest.mark.parametrize("text", ["a", "3;4", "5-3", "90%-80%", "120%", "-1", "last", "1.5"])
def test_steps_not_understood(text):
    with pytest.raises(InputError, match="not understood"):
        parse_steps(text)


@pytest.mark.parametrize("text", ["30", "24,31", "28-30"])
def test_steps_outside_the_run(text):
    parse_steps(text)
    with pytest.raises(InputError, match="30"):
        parse_steps(text, 30)


@pytest.mark.parametrize(
    "params",
    [
        {"strength": 1.5},
        {"strength": -0.1},
        {"strength": float("nan")},
        {"relative_threshold": -1.0},
        {"absolute_threshold": float("nan")},
    ],
)
def test_impossible_params_are_named(params):
    with pytest.raises(InputError, match="strength from 0 to 1, and thresholds from 0 on"):
        PropagationParams(**params)
