"""RGBA clips through the pack, with ComfyUI's own nodes to take them apart; and single images."""

from __future__ import annotations

from typing import Any

import graph
import pytest
import torch

SIZE = (16, 24)


@pytest.fixture(scope="module")
def networks(pack, models):
    own = models / "upscale_a_video"
    return (
        pack.nodes.model.unet.load_unet(str(own / "unet.safetensors")),
        pack.nodes.model.vae.VideoVAE(str(own / "vae_video.safetensors")),
    )


def upscale(pack, networks, images, propagation=None):
    unet, vae = networks
    sampled = graph.sample(pack, unet, images, steps=2, guidance=3.0, propagation=propagation)
    node = pack.nodes.sampling.decode.VAEDecode
    return node.execute({"samples": sampled}, vae, images, 1.0, 3, "none").result[0]


def native(node, *given) -> Any:
    """The outputs of a node of ComfyUI's own."""
    return node.execute(*given).result or ()


def run(pack, alpha, frames):
    return pack.nodes.frames.alpha.UpscaleAlpha.execute(alpha, frames).result


@pytest.mark.parametrize("count", [1, 3])
def test_an_rgba_clip_comes_out_as_one(pack, networks, count):
    from comfy_extras.nodes_compositing import JoinImageWithAlpha, SplitImageWithAlpha

    rgba = torch.cat([graph.frames(count, *SIZE), torch.ones(count, *SIZE, 1)], dim=-1)
    rgba[:, :, :10, 3] = 0
    colours, mask = native(SplitImageWithAlpha, rgba)
    large = upscale(pack, networks, colours)
    joined, large_mask = run(pack, mask, large)
    assert joined.shape == (count, 64, 96, 4) and large_mask.shape == (count, 64, 96)
    assert torch.equal(joined[..., :3], large)
    assert (joined[:, :, :32, 3] == 0).all() and (joined[:, :, 48:, 3] == 1).all()
    assert torch.equal(run(pack, rgba, large)[0], joined)
    (again,) = native(JoinImageWithAlpha, large, large_mask)
    torch.testing.assert_close(again, joined, rtol=0, atol=1e-6)


def test_one_mask_serves_all_frames(pack):
    masks = run(pack, torch.zeros(1, 8, 8), torch.rand(3, 32, 32, 3))[1]
    assert masks.shape == (3, 32, 32) and not masks.any()


def test_frames_without_alpha_are_refused(pack):
    with pytest.raises(pack.uav_core.InputError, match="leave 'Upscale Alpha' out"):
        run(pack, torch.zeros(1, 8, 8, 3), torch.zeros(1, 32, 32, 3))


def test_the_error_for_rgba_names_the_node(pack):
    with pytest.raises(pack.uav_core.InputError, match="'Upscale Alpha' at the end"):
        graph.conditioned(pack, torch.zeros(2, 32, 32, 4))


def test_a_single_image_goes_through_everything(pack, networks):
    images = graph.frames(1, *SIZE)
    flow = pack.nodes.loaders.load.LoadFlowModel.execute(
        pack.nodes.loaders.load.BUILTIN_FLOW
    ).result[0]
    node = pack.nodes.sampling.propagate.Propagation
    plan = node.execute(flow, images, "last 1", 0.5, 0.001, 0.05).result[0]
    large = upscale(pack, networks, images, plan)
    assert large.shape == (1, 64, 96, 3)
    assert torch.isfinite(large).all() and large.std() > 0.01
    assert torch.equal(large, upscale(pack, networks, images)), "one frame has no neighbour"
