"""A piece of the result before the run: the same as in the run, and an estimate of the rest."""

from __future__ import annotations

import re
import time
from fractions import Fraction

import graph
import pytest
import torch

T, H, W = 10, 32, 48
SETTINGS = {
    "first_frame": 0,
    "frames": 8,
    "x": 0,
    "y": 0,
    "width": 0,
    "height": 0,
    "noise_level": 60,
    "steps": 2,
    "guidance": 1.0,
    "propagation_steps": "1",
    "color_fix": "none",
    "seed": 5,
    "propagation_strength": 0.5,
}


@pytest.fixture(scope="module")
def networks(pack):
    load = pack.nodes.loaders.load
    positive, negative = graph.texts()
    return {
        "model": load.LoadUNet.execute("unet.safetensors", "fp32").result[0],
        "vae": load.LoadVAE.execute("vae_video.safetensors").result[0],
        "flow_model": load.LoadFlowModel.execute(load.BUILTIN_FLOW).result[0],
        "positive": positive,
        "negative": negative,
    }


def run(pack, networks, clip, **changes):
    node = pack.nodes.look.preview_crop.PreviewCrop
    with torch.inference_mode():  # as ComfyUI runs nodes
        return node.execute(**{**networks, **SETTINGS, **changes, "clip": clip})


def clip_of(images):
    from comfy_api.input_impl import VideoFromComponents
    from comfy_api.util import VideoComponents

    return VideoFromComponents(VideoComponents(images=images, audio=None, frame_rate=Fraction(10)))


def whole(pack, networks, images):
    """The same by the nodes for clips."""
    positive, negative, latent = graph.conditioned(pack, images, noise_level=60)
    plan = pack.nodes.sampling.propagate.Propagation.execute(
        networks["flow_model"], images, "1", 0.5, 0.001, 0.05
    ).result[0]
    sampled = pack.nodes.sampling.sample.SegmentSampler.execute(
        networks["model"], positive, negative, latent, 2, 1.0, 5, 8, 2, plan
    ).result[0]
    node = pack.nodes.sampling.decode.VAEDecode
    return node.execute(sampled, networks["vae"], images, 1.0, 3, "none").result[0]


def test_all_of_a_clip_is_the_clip(pack, networks):
    images = graph.frames(T, 16, 24)
    made, plain, _ = run(pack, networks, images, frames=99).result
    torch.testing.assert_close(made, whole(pack, networks, images), rtol=1e-4, atol=1e-4)
    assert plain.shape == made.shape == (T, 64, 96, 3)


def test_a_crop_is_of_its_place_and_looks_like_it(pack, networks):
    images = graph.frames(T, H, W)
    changes = {"first_frame": 4, "frames": 3, "x": 8, "y": 4, "width": 20, "height": 16}
    made, plain, _ = run(pack, networks, images, **changes).result
    assert made.shape == (3, 64, 80, 3)
    chosen = images[4:7, 4:20, 8:28].movedim(-1, 1)
    large = torch.nn.functional.interpolate(chosen, (64, 80), mode="bicubic", antialias=True)
    assert (plain - large.movedim(1, -1).clamp(0, 1)).abs().max() < 1e-5
    noise = pack.uav_core.sampling.noise.frame_noise(5, "latent", range(4, 7), 4, H, W)
    piece = pack.nodes.look.piece.Piece.of((T, H, W), 4, 3, 8, 4, 20, 16)
    assert torch.equal(piece.noise(5, "latent", 4), noise[..., 4:20, 8:28])


def test_frames_in_fp16(pack, networks):
    """As LoadImage gives them with --fp16-intermediates."""
    images, changes = graph.frames(2, 16, 24), {"frames": 2, "steps": 1, "propagation_steps": ""}
    made, plain, _ = run(pack, networks, images.half(), detail=0.6, **changes).result
    expected, larger, _ = run(pack, networks, images, detail=0.6, **changes).result
    assert made.dtype == plain.dtype == torch.float32
    torch.testing.assert_close(made, expected, rtol=0, atol=0.05)
    torch.testing.assert_close(plain, larger, rtol=0, atol=1e-3)


def test_detail_is_that_of_the_node(pack, networks):
    """The same dial, so the piece shows what the node will make of the run."""
    images, changes = graph.frames(3, 16, 24), {"frames": 3, "steps": 1, "propagation_steps": ""}
    made = run(pack, networks, images, **changes).result[0]
    dial = pack.nodes.frames.detail.Detail
    for value in (0.0, 0.6):
        shown = run(pack, networks, images, detail=value, **changes).result[0]
        expected = dial.execute(made, images, value).result[0]
        torch.testing.assert_close(shown, expected, rtol=0, atol=1e-4)
        assert (shown - made).abs().mean() > 5e-3


def test_the_self_ensemble_is_that_of_the_decoder(pack, networks):
    images, changes = graph.frames(2, 16, 24), {"frames": 2, "steps": 1, "propagation_steps": ""}
    plain, made = (
        run(pack, networks, images, self_ensemble=on, **changes).result[0] for on in (False, True)
    )
    assert made.shape == plain.shape
    assert (made - plain).abs().max() > 1e-3


def test_a_video_is_read_where_it_is_needed(pack, networks, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    images = graph.frames(T, H, W).mul(255).round().div(255)
    place = {"first_frame": 5, "frames": 2, "x": 16, "width": 16, "height": 16}
    changes = {**place, "steps": 1, "propagation_steps": ""}
    by_file = run(pack, networks, clip_of(images), **changes).result
    by_frames = run(pack, networks, images, **changes).result
    torch.testing.assert_close(by_file[1], by_frames[1], rtol=0, atol=0.003)
    torch.testing.assert_close(by_file[0], by_frames[0], rtol=0, atol=0.05)
    assert "for all 10 frames of 48x32" in by_file[2]


def test_the_estimate_is_about_right(pack, networks):
    """Within five times, on a machine that does other things as well."""
    images = graph.frames(T, 16, 32)
    result = run(pack, networks, images, frames=8, width=16, propagation_steps="")
    text = result.result[2]
    assert result.ui["text"] == (text,) and len(result.ui["images"]) == 1
    assert "(4 passes)" in text and "(4 groups)" in text and "flow" not in text
    # 10 frames at twice the area, in two segments of 8 frames instead of one.
    found = re.search(r"frames of 32x16: .*?, ([\d.e-]+) s a frame", text)
    assert found is not None
    seconds = float(found[1]) * T
    started = time.perf_counter()
    run(pack, networks, images, frames=T, propagation_steps="")
    took = time.perf_counter() - started
    assert took / 5 < seconds < took * 5


def test_memory_is_that_of_the_whole_frames(pack, networks):
    def estimated(**changes):
        text = run(pack, networks, graph.frames(T, H, W), steps=1, **changes).result[2]
        return text.splitlines()[-1]

    one = {"frames": 1, "propagation_steps": ""}
    assert estimated(**one, width=16, height=16) == estimated(**one)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first_frame": 10}, "a clip with frames 0 to 9"),
        ({"x": 40}, "at least 16 px"),
        ({"width": 8}, "at least 16 px"),
        ({"vae": object()}, "not a temporal VAE"),
        ({"model": object()}, "temporal U-Net"),
        ({"flow_model": object()}, "not a RAFT"),
        ({"propagation_steps": "7"}, "outside the run"),
        ({"overlap": 8}, "overlap"),
        ({"detail": 1.6}, "Detail is 1.6"),
    ],
)
@pytest.mark.usefixtures("nothing_loads")
def test_what_does_not_fit_is_refused_before_models_load(pack, networks, changes, message):
    with pytest.raises(pack.uav_core.InputError, match=message):
        run(pack, {**networks, **changes}, graph.frames(T, H, W), **changes)


def test_what_is_no_clip_is_refused(pack, networks):
    with pytest.raises(pack.uav_core.InputError, match="expected a VIDEO"):
        run(pack, networks, object())
