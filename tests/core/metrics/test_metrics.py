"""Every measure on clips for which the answer is known."""

import builtins
import json
import math

import pytest
import torch
from generated import det

from uav_core.errors import InputError, MissingPackageError
from uav_core.flow.builtin import BuiltinFlow
from uav_core.metrics import (
    Motion,
    compare,
    detail,
    estimate_motion,
    fidelity,
    joint_borders,
    psnr,
    temporal_jump,
    temporal_profile,
    visible,
    warping_error,
)

T, H, W = 4, 32, 48


def noise(name, *shape):
    return det(f"metrics {name}", shape)


def smooth(h=H, w=W):
    """(3,h,w) in [0, 1] without fine detail."""
    picture = torch.nn.functional.interpolate(
        noise("smooth", 1, 3, 6, 8).mul(0.2).add(0.5), (h, w), mode="bicubic"
    )
    return picture[0].clamp(0.1, 0.9)


def clip(*pictures):
    """Pictures (3,h,w) in [0, 1] as the core's clip."""
    return torch.stack(pictures, dim=1)[None] * 2 - 1


def motion(x=0.0, y=0.0, t=T, h=H, w=W):
    """The same motion everywhere, all of it visible."""
    flow = torch.tensor([x, y]).view(1, 2, 1, 1, 1).expand(1, 2, t - 1, h, w).clone()
    return Motion(flow, torch.ones(1, 1, t - 1, h, w, dtype=torch.bool))


# ---------------------------------------------------------------- warping error


def test_static_clip_has_no_warping_error():
    still = clip(*[smooth()] * T)
    assert warping_error(still, motion()) < 1e-12
    assert warping_error(still, estimate_motion(BuiltinFlow(), still)) < 1e-9


def test_translation_has_no_warping_error():
    wide = smooth(H, W + 2 * T)
    moved = clip(*(wide[..., 2 * i : 2 * i + W] for i in range(T)))  # two pixels left a frame
    known = motion(x=-2.0)
    known.visible[..., :2] = False  # what leaves the picture
    assert warping_error(moved, known) < 1e-12
    estimated = estimate_motion(BuiltinFlow(), moved)
    assert not estimated.visible[..., 0].any()
    assert estimated.visible.float().mean() > 0.7
    without = warping_error(moved, motion())
    assert warping_error(moved, estimated) < without / 50


def test_noise_in_every_frame_counts_twice():
    sigma = 0.05
    frames = [smooth() * 0.4 + 0.3 + sigma * noise(f"frame {i}", 3, H, W) for i in range(T)]
    assert warping_error(clip(*frames), motion()) == pytest.approx(2 * sigma**2, rel=0.03)


def test_a_step_counts_squared_and_as_a_mean_over_pairs():
    base = smooth() * 0.5
    flash = clip(base, base, base + 0.1, base + 0.1)
    assert warping_error(flash, motion()) == pytest.approx(0.1**2 / 3, rel=1e-4)


def test_hidden_pixels_do_not_count():
    base = smooth() * 0.5
    spoiled = base.clone()
    spoiled[:, :8] += 0.4
    frames = clip(base, spoiled, base, spoiled)
    seen = motion()
    assert warping_error(frames, seen) == pytest.approx(0.4**2 * 8 / H, rel=1e-4)
    seen.visible[..., :8, :] = False
    assert warping_error(frames, seen) < 1e-12
    seen.visible[..., 1, :, :] = False  # a pair of which nothing is seen is left out
    assert warping_error(frames, seen) < 1e-12
    seen.visible[:] = False
    assert math.isnan(warping_error(frames, seen))


def test_visible_where_flows_agree():
    there = torch.zeros(1, 2, 8, 40)
    there[:, 0, :, :20] = 3.0  # the left half moves onto the right one
    back = torch.zeros_like(there)
    back[:, 0, :, :23] = -3.0
    seen = visible(there, back)[0, 0]
    assert seen[:, :19].all()
    assert not seen[:, 19].any(), "the motion breaks"
    assert not seen[:, 20:23].any(), "covered"
    assert seen[:, 23:].all()


def test_what_leaves_the_picture_is_not_visible():
    flow = torch.full((1, 2, 8, 8), 2.0)
    seen = visible(flow, -flow)[0, 0]
    assert seen[:6, :6].all() and not seen[6:].any() and not seen[:, 6:].any()


def test_motion_estimated_on_smaller_frames():
    wide = smooth(64, 96 + 8)
    moved = clip(wide[..., :96], wide[..., 4:100])
    small = estimate_motion(BuiltinFlow(), moved, longest_side=48)
    assert small.flow.shape == (1, 2, 1, 64, 96)
    assert small.flow[:, 0, :, 16:-16, 16:-16].mean() == pytest.approx(-4, abs=0.2)


def test_motion_of_another_clip_is_refused():
    with pytest.raises(InputError, match="expected the same"):
        warping_error(clip(*[smooth()] * 3), motion())
    with pytest.raises(InputError, match="at least 2 frames"):
        estimate_motion(BuiltinFlow(), clip(smooth()))
    with pytest.raises(InputError, match="at least 16"):
        estimate_motion(BuiltinFlow(), clip(smooth(), smooth()), longest_side=8)


# ---------------------------------------------------------------- joints


def ramp(t, extra=()):
    """A clip that brightens by 0.01 a frame, and by 0.02 more where `extra` begins."""
    levels = [0.1 + 0.01 * i + 0.02 * sum(i >= b for b in extra) for i in range(t)]
    return clip(*(torch.full((3, 16, 16), level) for level in levels))


def test_temporal_jump():
    assert temporal_jump(ramp(12), (3, 6, 9)) == pytest.approx(1, rel=1e-4)
    assert temporal_jump(ramp(12, (3, 6, 9)), (3, 6, 9)) == pytest.approx(3, rel=1e-4)
    assert temporal_jump(ramp(12, (3,)), (3, 9)) == pytest.approx(2, rel=1e-4)
    still = clip(*[smooth()] * 4)
    assert temporal_jump(still, (2,)) == 1
    still[:, :, 2:] += 0.1
    assert temporal_jump(still, (2,)) == math.inf


def test_borders_of_plans():
    assert joint_borders(14, length=8, overlap=2, group=0) == (6, 8)
    assert joint_borders(16, length=8, overlap=2, group=0) == (6, 8, 14)
    assert joint_borders(16, length=8, overlap=0, group=0) == (8,)
    assert joint_borders(8, group=0) == ()
    assert joint_borders(8, length=0, group=3) == (3, 6)
    assert joint_borders(3, length=0, group=3) == ()
    assert joint_borders(16, length=8, overlap=2, group=3) == (3, 6, 8, 9, 12, 14, 15)
    assert joint_borders(2, length=1, overlap=0, group=1) == (), "nothing to compare with"


@pytest.mark.parametrize("borders", [(), (0,), (4,), (1, 2, 3)])
def test_borders_are_checked(borders):
    with pytest.raises(InputError, match="Borders at"):
        temporal_jump(ramp(4), borders)


# ---------------------------------------------------------------- likeness


def test_psnr_of_a_known_offset():
    frames = clip(smooth(), smooth())
    brighter = frames + 2 * 0.1
    brighter[:, :, 1] = frames[:, :, 1] + 2 * 0.01
    assert psnr(brighter, frames) == pytest.approx((20 + 40) / 2, abs=0.01)
    assert psnr(frames, frames) == pytest.approx(100)


def test_equal_clips_are_alike():
    frames = clip(smooth(), smooth())
    found = fidelity(frames, frames)
    assert found["ssim"] == pytest.approx(1, abs=1e-5)
    assert found["haarpsi"] == pytest.approx(1, abs=1e-5)
    assert found["gmsd"] == pytest.approx(0, abs=1e-4)


def test_more_noise_is_less_alike():
    frames = clip(smooth(), smooth())
    little, much = (frames + s * noise("likeness", *frames.shape) for s in (0.02, 0.2))
    a, b = fidelity(little, frames), fidelity(much, frames)
    assert a["psnr"] > b["psnr"] and a["ssim"] > b["ssim"] and a["haarpsi"] > b["haarpsi"]
    assert a["gmsd"] < b["gmsd"]


def test_ssim_is_of_the_full_size():
    """Fine noise at 512 px would be averaged away by shrinking first."""
    plain = torch.full((1, 3, 1, 512, 512), 0.0)
    noisy = plain + 0.2 * noise("fine", *plain.shape)
    large = fidelity(noisy, plain, ("ssim",))
    small = fidelity(noisy[..., :128, :128], plain[..., :128, :128], ("ssim",))
    assert large == pytest.approx(small, abs=0.02)


def test_clips_must_be_alike_in_size():
    with pytest.raises(InputError, match="2 frames of 48x32, the reference 1 of 48x32"):
        psnr(clip(smooth(), smooth()), clip(smooth()))
    with pytest.raises(InputError, match="at least 16 px"):
        psnr(clip(smooth(15, 20)), clip(smooth(15, 20)))


@pytest.fixture
def no_piq(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "piq":
            raise ImportError("No module named 'piq'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)


def test_without_piq(no_piq):
    frames = clip(smooth(), smooth())
    with pytest.raises(MissingPackageError, match="pip install --no-deps piq"):
        fidelity(frames, frames, ("ssim",))
    assert psnr(frames, frames) == pytest.approx(100)
    table = compare({"one": frames}, frames)
    assert set(table.rows["one"]) == {"warping_error", "detail", "psnr"}
    assert "pip install --no-deps piq" in table.to_text()


# ---------------------------------------------------------------- pictures


def test_profile_of_a_moving_edge_is_a_diagonal():
    frames = []
    for i in range(8):
        picture = torch.zeros(3, 16, 32)
        picture[..., : 4 + 3 * i] = 1
        frames.append(picture)
    profile = temporal_profile(clip(*frames), row=5)
    assert profile.shape == (3, 8, 32)
    edges = (profile[0] > 0).sum(dim=1)
    assert edges.tolist() == [4 + 3 * i for i in range(8)]


def test_profile_is_of_a_row_inside():
    for wrong in (H, -1):
        with pytest.raises(InputError, match=f"row {wrong}: expected 0 to {H - 1}"):
            temporal_profile(clip(smooth()), wrong)


def test_detail_is_the_slope():
    across = torch.arange(32.0).mul(0.02).expand(3, 16, 32)
    assert detail(clip(across, across)) == pytest.approx(0.02, rel=1e-4)
    assert detail(clip(torch.full((3, 16, 16), 0.3))) == 0


# ---------------------------------------------------------------- the table


def test_comparison():
    still = clip(*[smooth()] * 9)
    flicker = still.clone()
    flicker[:, :, 3::3] += 0.1
    calls = []
    table = compare(
        {"steady": still, "flickering": flicker},
        reference=still,
        borders=(3, 6),
        progress=lambda done, total: calls.append((done, total)),
        check_cancelled=lambda: calls.append("check"),
    )
    steady, flickering = table.rows["steady"], table.rows["flickering"]
    assert steady["warping_error"] < 1e-6
    assert flickering["warping_error"] == pytest.approx(1000 * 0.05**2 * 4 / 8, rel=0.01)
    assert steady["temporal_jump"] == 1 and flickering["temporal_jump"] > 1
    assert steady["psnr"] == pytest.approx(100) and flickering["ssim"] < 1
    done = [call for call in calls if call != "check"]
    assert done == [(i, 18) for i in range(1, 19)]
    assert calls[0] == "check"

    lines = table.to_text().splitlines()
    titles = "E*warp detail time joints PSNR dB SSIM HaarPSI GMSD"
    assert " ".join(lines[0].split()) == titles
    assert lines[2].startswith("steady") and lines[3].startswith("flickering")
    assert len({len(line) for line in lines[2:4]}) == 1
    assert "motion of: reference" in table.to_text()
    content = json.loads(table.to_json())
    assert content["rows"]["flickering"]["psnr"] == flickering["psnr"]
    assert content["motion_of"] == "reference"


def test_comparison_without_a_reference_uses_the_first_motion():
    table = compare({"input": clip(*[smooth()] * 2), "other": clip(*[smooth()] * 2)})
    assert table.motion_of == "input"
    assert set(table.rows["other"]) == {"warping_error", "detail"}


def test_comparison_takes_a_motion_that_is_known():
    frames, calls = clip(*[smooth()] * 3), []
    frames[:, :, 1:] += 0.1
    known = Motion(torch.zeros(1, 2, 2, H, W), torch.ones(1, 1, 2, H, W, dtype=torch.bool))
    table = compare({"one": frames}, motion=known, progress=lambda *call: calls.append(call))
    assert table.rows["one"]["warping_error"] == pytest.approx(1000 * 0.05**2 / 2, rel=1e-3)
    assert table.motion_of == "one" and "covers the 100%" in table.to_text()
    assert calls == [(1, 1)], "no flow is estimated"


def test_one_frame_has_no_warping_error():
    table = compare({"one": clip(smooth())})
    assert set(table.rows["one"]) == {"detail"} and table.motion_of is None


def test_infinity_is_still_json():
    frames = clip(*[torch.full((3, 16, 16), 0.3)] * 4)
    frames[:, :, 2:] += 0.1
    content = json.loads(compare({"one": frames}, borders=(2,)).to_json())
    assert content["rows"]["one"]["temporal_jump"] == "inf"


def test_comparison_of_nothing_or_of_different_clips():
    with pytest.raises(InputError, match="at least one"):
        compare({})
    with pytest.raises(InputError, match="expected the same"):
        compare({"a": clip(smooth()), "b": clip(smooth(), smooth())})


def test_cancel():
    class Cancelled(BaseException):
        pass

    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        compare({"one": clip(smooth())}, check_cancelled=cancel)
