"""The node that puts versions of a clip next to each other and measures them."""

from __future__ import annotations

import json

import graph
import pytest
import torch

T, H, W = 5, 32, 48


@pytest.fixture
def node(pack):
    return pack.nodes.look.compare.Compare


def moving(t=T):
    """IMAGE of smooth pictures that move a pixel to the right with every frame."""
    wide = graph.frames(1, 8, 16).movedim(-1, 1)
    wide = torch.nn.functional.interpolate(wide, (H, W + t), mode="bicubic").movedim(1, -1)
    return torch.cat([wide[:, :, t - i : t - i + W] for i in range(t)]).clamp(0, 1)


def run(node, first, second, **options):
    settings = {"names": "plain, noisy, third", "labels": True, "profile_line": 0.5}
    return node.execute(first, second, **{**settings, **options})


def noisy(clip, amount=0.1):
    return (clip + amount * (torch.rand(clip.shape, generator=torch.manual_seed(1)) - 0.5)).clamp(
        0, 1
    )


def test_numbers_tell_the_versions_apart(node):
    clip = moving()
    result = run(node, clip, noisy(clip), reference=clip)
    rows = json.loads(result.result[3])["rows"]
    assert set(rows) == {"plain", "noisy"}
    assert rows["plain"]["psnr"] == 100 and rows["noisy"]["psnr"] == pytest.approx(30.8, abs=0.5)
    assert rows["plain"]["warping_error"] < rows["noisy"]["warping_error"] / 5
    assert rows["plain"]["haarpsi"] == pytest.approx(1, abs=1e-4)
    assert rows["noisy"]["haarpsi"] < 0.99
    assert rows["plain"]["gmsd"] == pytest.approx(0, abs=1e-5)
    assert rows["noisy"]["gmsd"] > 0.003
    table = result.result[2]
    assert "E*warp along the motion of: reference." in table
    assert [line.split()[0] for line in table.splitlines()[1:4]] == ["better", "plain", "noisy"]


def test_table_is_shown_on_the_node(node):
    result = run(node, moving(), moving())
    assert result.ui["text"] == (result.result[2],)
    assert len(result.ui["images"]) == 1


def test_pictures_stand_side_by_side(node):
    clip, other = moving(), 1 - moving()
    panels, profile = run(node, clip, other, labels=False).result[:2]
    assert panels.shape == (T, H, 2 * W + 2, 3)
    assert (panels[:, :, :W] - clip).abs().max() < 1e-6
    assert (panels[:, :, -W:] - other).abs().max() < 1e-6
    times = 96 // T
    assert profile.shape == (1, 2 * times * T + 2, W, 3)
    line = clip[:, round(0.5 * (H - 1))]
    assert (profile[0, : times * T : times] - line).abs().max() < 1e-6


def test_labels_stand_above(node):
    plain = run(node, moving(), moving(), labels=False).result[0]
    named = run(node, moving(), moving()).result[0]
    strip = named.shape[1] - plain.shape[1]
    assert strip > 10
    strip -= not torch.equal(named[:, strip:], plain)  # one more line makes the height even
    assert torch.equal(named[:, strip : strip + H], plain)
    left, right = named[0, :strip, :W], named[0, :strip, -W:]
    assert left.std() > 0.05 and not torch.equal(left, right)


def test_three_clips_of_different_sizes(node):
    small = moving()[:, ::2, ::2]
    panels = run(node, small, moving(), third=moving(), labels=False).result[0]
    assert panels.shape == (T, H, 3 * W + 4, 3)


def test_frames_in_fp16_are_compared_in_fp32(node):
    """As LoadImage gives them with --fp16-intermediates; a CPU cannot resize them."""
    clip = moving()
    small = clip[:, ::2, ::2].half()
    half = run(node, small, clip.half(), third=clip, reference=clip.half()).result
    same = run(node, small.float(), clip.half().float(), third=clip, reference=clip).result
    for pictures, expected in zip(half[:2], same[:2], strict=True):
        assert pictures.dtype == torch.float32
        torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-3)


def test_clips_already_alike_are_not_copied(pack):
    clips = [torch.rand(1, 3, 2, 16, 16) for _ in range(2)]
    alike = pack.nodes.look.compare.alike(clips)
    assert all(a is b for a, b in zip(alike, clips, strict=True))


def test_one_frame_has_no_motion(node):
    rows = json.loads(run(node, moving(1), noisy(moving(1))).result[3])["rows"]
    assert "warping_error" not in rows["plain"] and "detail" in rows["plain"]


def test_joints_of_segments_and_groups_are_measured(node):
    still = moving(1).expand(20, -1, -1, -1).clone()
    steps = still.clone()
    for border in (6, 8, 12, 14, 9, 15, 18, 3):
        steps[border:] = (1 - steps[border:]).clone()  # flips where joints are, and nowhere else
    rows = json.loads(run(node, still, steps).result[3])["rows"]
    assert rows["plain"]["temporal_jump"] == 1
    assert rows["noisy"]["temporal_jump"] == "inf"
    off = json.loads(run(node, still, steps, segment_length=0, frames_per_group=0).result[3])
    assert "temporal_jump" not in off["rows"]["noisy"]


@pytest.mark.parametrize("names", ["", "one", "one, one", "one, , "])
def test_wrong_names_are_refused(node, pack, names):
    with pytest.raises(Exception, match="expected 2 different names"):
        run(node, moving(), moving(), names=names)


def test_clips_of_different_length_are_refused(node):
    with pytest.raises(Exception, match=r"5, 4 frames: expected the same number"):
        run(node, moving(), moving()[:4])


def test_cancel_goes_through(node):
    import comfy.model_management as mm

    mm.interrupt_current_processing(True)
    with pytest.raises(mm.InterruptProcessingException):
        run(node, moving(), moving())
    assert not mm.processing_interrupted()


def test_ram_of_its_own_flow_model_is_known_to_comfyui(node, pack):
    flow = pack.nodes.loaders.load.LoadFlowModel.execute(
        pack.nodes.loaders.load.BUILTIN_FLOW
    ).result[0]
    with_given = run(node, moving(), noisy(moving()), flow_model=flow).result[3]
    assert with_given == run(node, moving(), noisy(moving())).result[3]
