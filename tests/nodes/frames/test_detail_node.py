"""'Detail' on the frames that 'Temporal VAE Decode' gave."""

from __future__ import annotations

import graph
import pytest
import torch
import torch.nn.functional as F

SMALL = graph.frames(3, 16, 24)


@pytest.fixture
def dial(pack):
    return lambda *given: pack.nodes.frames.detail.Detail.execute(*given).result[0]


@pytest.fixture
def large(pack):
    core, inputs = pack.uav_core, pack.nodes.base.inputs
    enlarged = core.sampling.pipeline.bicubic(inputs.video_frames(SMALL))
    return inputs.to_images(enlarged + 0.1 * torch.randn(enlarged.shape))


def test_from_the_enlargement_to_all_of_it(pack, dial, large):
    inputs = pack.nodes.base.inputs
    assert torch.equal(dial(large, SMALL), large) and torch.equal(dial(large, SMALL, 1.0), large)
    enlarged = pack.uav_core.sampling.pipeline.bicubic(inputs.video_frames(SMALL))
    plain = inputs.to_images(enlarged)
    torch.testing.assert_close(dial(large, SMALL, 0.0), plain, rtol=0, atol=1e-6)
    between = dial(large, SMALL, 0.5)
    assert between.shape == large.shape and between.min() >= 0 and between.max() <= 1
    changed = [
        (F.avg_pool2d(x.movedim(-1, 1), 4).movedim(1, -1) - SMALL).abs().mean()
        for x in (large, between)
    ]
    assert changed[1] < 0.5 * changed[0]


@pytest.mark.parametrize("wrong", [SMALL, torch.zeros(2, 64, 96, 3), torch.zeros(3, 64, 92, 3)])
def test_not_the_clip_that_was_upscaled(pack, dial, wrong):
    with pytest.raises(pack.uav_core.InputError, match="four times as large"):
        dial(wrong, SMALL, 0.5)


def test_out_of_range(pack, dial, large):
    with pytest.raises(pack.uav_core.InputError, match="Detail is 2"):
        dial(large, SMALL, 2.0)
