"""Output sizes other than 4x, around the real sampler and decoder."""

from __future__ import annotations

import graph
import pytest
import torch

SETTINGS = {
    "target": "exact size",
    "factor": 2.0,
    "short_side": 48,
    "width": 100,
    "height": 90,
    "aspect": "pad",
}


@pytest.fixture(scope="module")
def networks(pack, models):
    own = models / "upscale_a_video"
    return (
        pack.nodes.model.unet.load_unet(str(own / "unet.safetensors")),
        pack.nodes.model.vae.VideoVAE(str(own / "vae_video.safetensors")),
    )


def set_size(pack, images, use, **changes):
    node = pack.nodes.frames.output_size.SetOutputSize
    settings = {**SETTINGS, **changes}
    return node.execute(images, getattr(pack.nodes.frames.output_size, use), **settings).result


def upscale(pack, networks, images):
    unet, vae = networks
    samples = {"samples": graph.sample(pack, unet, images, steps=1, guidance=1.0)}
    return pack.nodes.sampling.decode.VAEDecode.execute(
        samples, vae, images, 1.0, 3, "none"
    ).result[0]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, (90, 100)),
        ({"aspect": "crop"}, (90, 100)),
        ({"target": "factor", "factor": 2.3}, (74, 92)),
        ({"target": "short side"}, (48, 60)),
    ],
)
def test_around_the_upscaler(pack, networks, changes, size, count):
    images = graph.frames(count, 32, 40)
    small, plan, sizes = set_size(pack, images, "BEFORE", **changes)
    large = upscale(pack, networks, small)
    (done,) = pack.nodes.frames.output_size.FinishOutputSize.execute(large, plan).result
    assert tuple(done.shape) == (count, *size, 3)
    assert f"finished {size[1]}x{size[0]}" in sizes
    assert done.min() >= 0 and done.max() <= 1


def test_after_the_upscaler_alone(pack):
    large = graph.frames(2, 128, 160)
    done, plan, _ = set_size(pack, large, "AFTER", target="factor", factor=2.0)
    assert done.shape == (2, 64, 80, 3)
    (again,) = pack.nodes.frames.output_size.FinishOutputSize.execute(done, plan).result
    assert torch.equal(again, done)


def test_what_is_no_plan_is_refused(pack):
    with pytest.raises(pack.uav_core.InputError, match="the plan from 'Output Size'"):
        pack.nodes.frames.output_size.FinishOutputSize.execute(graph.frames(1), None)


def test_no_frames_are_refused(pack):
    with pytest.raises(pack.uav_core.InputError, match="at least one frame"):
        set_size(pack, torch.zeros(0, 32, 32, 3), "BEFORE")


def test_cancel_goes_through(pack):
    import comfy.model_management as mm

    mm.interrupt_current_processing(True)
    with pytest.raises(mm.InterruptProcessingException):
        set_size(pack, graph.frames(2, 64, 64), "BEFORE", target="factor", factor=1.0)
    assert not mm.processing_interrupted()
