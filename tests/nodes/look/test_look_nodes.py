"""Nodes that show: flow, differences, before and after, scenes."""

from __future__ import annotations

from fractions import Fraction

import graph
import pytest
import torch

from uav_core.video.scenes import parse_cuts

T, H, W = 4, 48, 64


def moving(t=T, step=1):
    """IMAGE of smooth pictures that move to the right with every frame."""
    wide = graph.frames(1, 12, 20).movedim(-1, 1)
    size = (H, W + t * step)
    wide = torch.nn.functional.interpolate(wide, size, mode="bicubic").movedim(1, -1)
    parts = [wide[:, :, (t - i) * step : (t - i) * step + W] for i in range(t)]
    return torch.cat(parts).sub(0.5).mul(3).add(0.5).clamp(0, 1)


def scenes(lengths=(12, 9, 15)):
    """IMAGE of scenes in different colours, each with something that moves a little."""
    parts = []
    for i, count in enumerate(lengths):
        colour = torch.zeros(3)
        colour[i % 3] = 0.8
        frames = colour.expand(count, H, W, 3).clone()
        for j in range(count):
            frames[j, 10:20, 5 + j : 15 + j] = 0.5
        parts.append(frames)
    return torch.cat(parts)


def video(images, rate=10):
    from comfy_api.input_impl import VideoFromComponents
    from comfy_api.util import VideoComponents

    parts = VideoComponents(images=images, audio=None, frame_rate=Fraction(rate))
    return VideoFromComponents(parts)


def test_flow_of_a_pan_is_one_colour_and_trusted(pack):
    node = pack.nodes.look.show.ShowFlow
    result = node.execute(moving(step=2))
    picture, flow, trusted = result.result
    assert flow.shape == (T - 1, H, W, 3) and trusted.shape == (T - 1, H, W)
    assert picture.shape[0] == T - 1 and picture.shape[2] == 3 * W + 4
    inside = flow[:, 12:-12, 12:-12]
    assert inside.std(dim=(0, 1, 2)).max() < 0.12, "one direction"
    assert inside.mean(dim=(0, 1, 2)).std() > 0.1, "and a colour, not white"
    assert trusted[:, 12:-12, 12:-12].mean() > 0.9
    assert len(result.ui["images"]) == 1


def test_flow_of_one_frame_rests(pack):
    _, flow, trusted = pack.nodes.look.show.ShowFlow.execute(moving(1)).result
    assert flow.shape == (1, H, W, 3) and flow.min() > 0.95 and trusted.all()


def test_what_is_no_flow_model_is_refused(pack):
    with pytest.raises(pack.uav_core.InputError, match="not a RAFT"):
        pack.nodes.look.show.ShowFlow.execute(moving(), flow_model=object())


def test_difference_stands_beside_both(pack):
    first = moving()
    second = first.clone()
    second[:, :, W // 2 :] = (second[:, :, W // 2 :] - 0.04).abs()
    panels, alone = pack.nodes.look.show.ShowDifference.execute(
        first, second, 5.0, "off, on"
    ).result
    above = round(1.7 * 11)  # the label
    assert panels.shape == (T, H + above + 1, 3 * W + 4, 3)  # one line more, to be even
    torch.testing.assert_close(panels[:, above : above + H, :W], first)
    torch.testing.assert_close(panels[:, above : above + H, W + 2 : 2 * W + 2], second)
    lower = alone[:, 25:-2]
    assert lower[:, :, : W // 2].max() < 1e-4
    assert lower[:, :, W // 2 :].mean() == pytest.approx(0.2, abs=0.02)


def test_the_factor_is_written_above(pack):
    node = pack.nodes.look.show.ShowDifference
    five, fifty = (node.execute(moving(), moving(), f, "a, b").result[1] for f in (5.0, 50.0))
    assert not torch.equal(five[:, :15], fifty[:, :15])
    assert torch.equal(five[:, 25:], fifty[:, 25:])


def test_before_and_after_of_different_sizes(pack):
    small, large = moving()[:, ::2, ::2], moving()
    (picture,) = pack.nodes.look.show.ShowBeforeAfter.execute(small, large, 0.5).result
    assert picture.shape == (T, H, W, 3)
    torch.testing.assert_close(picture[:, :, W // 2 + 2 :], large[:, :, W // 2 + 2 :])
    assert (picture[:, :, W // 2 - 1 : W // 2 + 1] == 1).all()


def test_frames_in_fp16_of_different_sizes(pack):
    small, large = moving()[:, ::2, ::2].half(), moving()
    show = pack.nodes.look.show
    (picture,) = show.ShowBeforeAfter.execute(small, large, 0.5).result
    (expected,) = show.ShowBeforeAfter.execute(small.float(), large, 0.5).result
    torch.testing.assert_close(picture, expected, rtol=0, atol=1e-3)
    apart = show.ShowDifference.execute(small, large.half(), 5.0, "a, b").result[1]
    assert apart.dtype == torch.float32 and torch.isfinite(apart).all()


@pytest.mark.parametrize("method", ["built-in", "auto"])
@pytest.mark.parametrize("as_video", [True, False])
def test_scenes_are_found_and_shown(pack, tmp_path, monkeypatch, method, as_video):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    images = scenes()
    clip = video(images) if as_video else images
    result = pack.nodes.look.scene_strip.SceneStrip.execute(clip, method, 48)
    strip, cuts = result.result
    assert cuts == "12, 21"
    assert parse_cuts(cuts, [i / 10 for i in range(36)]) == (12, 21)
    assert result.ui["text"] == (cuts,) and len(result.ui["images"]) == 1
    assert strip.shape[2] == 3 * 150 + 4
    colours = [strip[0, -24, 150 * i + 2 * i + 75] for i in range(3)]
    assert [int(c.argmax()) for c in colours] == [0, 1, 2]


def test_many_scenes_stand_in_rows(pack):
    module = pack.nodes.look.scene_strip
    pictures = [torch.full((3, 48, 85), i / 13 - 0.5) for i in range(13)]
    strip = module.in_rows(
        pictures, [module.label(i + 1, range(i, i + 1), None) for i in range(13)]
    )
    assert strip.shape[2] == 10 * 150 + 9 * 2
    rows = strip.shape[1] // 2
    assert strip[0, rows - 20, 75, 0] == pytest.approx(0.25, abs=0.01)
    assert strip[0, -20, 75, 0] == pytest.approx((10 / 13 - 0.5 + 1) / 2, abs=0.01)


def test_labels_say_when(pack):
    label = pack.nodes.look.scene_strip.label
    assert label(2, range(48, 60), None) == "2: frame 48"
    assert label(2, range(2, 3), [0.0, 1.0, 75.25]) == "2: frame 2, 1:15.2"


def test_a_clip_without_cuts(pack):
    strip, cuts = pack.nodes.look.scene_strip.SceneStrip.execute(moving(), "off", 48).result
    assert cuts == "0" and strip.shape[0] == 1


def test_what_is_no_clip_is_refused(pack):
    with pytest.raises(pack.uav_core.InputError, match="expected a VIDEO"):
        pack.nodes.look.scene_strip.SceneStrip.execute(object(), "auto", 48)


def test_a_connected_height_below_one_is_refused(pack):
    with pytest.raises(pack.uav_core.InputError, match="height arrived as 0: expected 1 px"):
        pack.nodes.look.scene_strip.SceneStrip.execute(moving(), "off", 0)
