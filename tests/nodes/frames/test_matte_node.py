"""Mattes and depth in step with the frames, through the node."""

from __future__ import annotations

import math

import pytest
import torch
from made_layers import FRAMES, H, W, bicubic, edge_error, scene, shrunk


@pytest.fixture(scope="module")
def frames():
    """The picture as an IMAGE."""
    return scene()[0].movedim(1, -1).add(1).div(2).clamp(0, 1)


def run(pack, small, frames, propagation=None):
    return pack.nodes.frames.matte.UpscaleMatte.execute(small, frames, propagation).result


def test_a_mask_and_an_image_come_out_alike(pack, frames):
    matte = scene()[1]
    small = shrunk(matte)
    image, mask = run(pack, small[:, 0], frames)
    assert image.shape == (FRAMES, H, W, 3) and mask.shape == (FRAMES, H, W)
    assert torch.equal(image[..., 0], mask)
    assert 2 * edge_error(mask[:, None], matte) < edge_error(bicubic(small), matte)
    again, _ = run(pack, small.movedim(1, -1).expand(-1, -1, -1, 3), frames)
    torch.testing.assert_close(again, image)


def test_the_motion_of_propagation_is_taken(pack, frames, monkeypatch):
    flow = pack.nodes.loaders.load.LoadFlowModel.execute(
        pack.nodes.loaders.load.BUILTIN_FLOW
    ).result[0]
    low = shrunk(frames.movedim(-1, 1)).movedim(1, -1)
    node = pack.nodes.sampling.propagate.Propagation
    plan = node.execute(flow, low, "last 1", 0.5, 0.001, 0.05).result[0]
    small = shrunk(scene()[2])[:, 0]
    own, _ = run(pack, small, frames)
    plan.estimate()
    monkeypatch.setattr(pack.nodes.sampling.propagate, "estimate_flows", None)
    with_plan, _ = run(pack, small, frames, plan)
    assert with_plan.max() > 5, "the range is kept"
    torch.testing.assert_close(with_plan, own, rtol=0, atol=0.2)
    with pytest.raises(pack.uav_core.InputError, match="has 4 frames, but the video has 3"):
        run(pack, small[:3], frames[:3], plan)


def test_a_single_frame(pack, frames):
    image, _ = run(pack, shrunk(scene()[1])[:1, 0], frames[:1])
    assert image.shape == (1, H, W, 3)


@pytest.mark.parametrize(
    ("small", "says"),
    [
        (torch.zeros(3, 24, 32), "has 3 frames, but the video has 4"),
        (torch.zeros(4, 24, 24), "expected the same aspect"),
        (torch.zeros(4, 24, 32, 4), "use 'Upscale Alpha'"),
        (torch.zeros(4, 24, 32, dtype=torch.uint8), "expected floating-point"),
        (torch.full((4, 24, 32), math.nan), "Frame 0 of the matte or depth has NaN"),
        (torch.full((4, 24, 32), math.inf), "set a maximum distance"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(small, says, pack, frames, monkeypatch):
    monkeypatch.setattr(pack.nodes.frames.matte, "flows_of", None)
    with pytest.raises(pack.uav_core.InputError, match=says):
        run(pack, small, frames)
