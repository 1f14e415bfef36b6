import subprocess
import sys

import pytest
import torch
from generated import det, generate, golden, key_shapes
from torch import nn

from uav_core.devices import memory
from uav_core.errors import CheckpointMismatchError, InputError, WrongCheckpointError
from uav_core.flow import estimate
from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import estimate_flow, estimate_flows, load_flow_model
from uav_core.weights.raft import raft_to_torchvision

GOLDEN = golden()


@pytest.fixture(scope="module")
def things():
    shapes = {key.removeprefix("module."): s for key, s in key_shapes("raft_things").items()}
    return generate("raft.", shapes)


@pytest.fixture(scope="module")
def model(things):
    return load_flow_model({"module." + key: tensor for key, tensor in things.items()})


class UnitFlow(nn.Module):
    """A network that sees one pixel right and one down everywhere, at whatever size it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.sizes = []

    def forward(self, image1, image2, num_flow_updates):
        self.sizes.append(tuple(image1.shape[-2:]))
        flow = self.weight * torch.ones(len(image1), 2, *image1.shape[-2:])
        return [torch.zeros_like(flow)] * (num_flow_updates - 1) + [flow]


def test_golden(model):
    flow = estimate_flow(model, GOLDEN["raft/image1"], GOLDEN["raft/image2"], iterations=4)
    expected = GOLDEN["raft/flow_iters4"]
    assert expected.abs().mean() > 1
    torch.testing.assert_close(flow, expected, rtol=1e-5, atol=1e-4)


def test_both_layouts_load_alike(things, model):
    converted = raft_to_torchvision(things)
    assert converted.keys() == model.state_dict().keys()
    other = load_flow_model(converted)
    assert not other.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]), key


def test_shortcut_norm_may_be_stored_once(things, model):
    thin = {k: v for k, v in things.items() if ".norm3." not in k and "batches" not in k}
    only_norm3 = {k.replace(".downsample.1.", ".norm3."): v for k, v in thin.items()}
    assert only_norm3.keys() != thin.keys()
    for given in (thin, only_norm3):
        for key, tensor in load_flow_model(given).state_dict().items():
            assert torch.equal(tensor, model.state_dict()[key]), key


def test_other_weights_are_refused(things):
    with pytest.raises(WrongCheckpointError, match="RAFT"):
        load_flow_model({"conv.weight": torch.zeros(1)})
    incomplete = {k: v for k, v in things.items() if k != "fnet.layer1.0.conv1.bias"}
    with pytest.raises(CheckpointMismatchError, match="1 missing"):
        load_flow_model(incomplete)
    with pytest.raises(CheckpointMismatchError, match="both"):
        raft_to_torchvision(things | raft_to_torchvision(things))


@pytest.mark.parametrize(
    ("size", "network"),
    [
        ((128, 160), (128, 160)),
        ((129, 161), (136, 168)),
        ((360, 641), (360, 648)),
        ((64, 100), (128, 200)),
        ((16, 20), (128, 160)),
        ((16, 1000), (128, 1024)),
        ((16, 2000), (128, 2000)),
    ],
)
def test_resizing_scales_each_axis(size, network):
    probe = UnitFlow()
    image = torch.zeros(1, 3, *size)
    flow = estimate_flow(probe, image, image, iterations=2)
    assert probe.sizes == [network]
    expected = torch.tensor([size[1] / network[1], size[0] / network[0]]).view(1, 2, 1, 1)
    torch.testing.assert_close(flow, expected.expand(1, 2, *size))


def test_smallest_frames_through_the_real_network(model):
    image = det("small", (2, 3, 16, 21)).clamp(-1, 1)
    flow = estimate_flow(model, image, image.flip(-1), iterations=1)
    assert flow.shape == (2, 2, 16, 21) and flow.isfinite().all()


def test_half_precision_weights_compute_in_fp32(things):
    half = load_flow_model(things).half()
    rounded = load_flow_model({k: v.half().to(v.dtype) for k, v in things.items()})
    images = GOLDEN["raft/image1"], GOLDEN["raft/image2"]
    flow = estimate_flow(half, *(image.double() for image in images), iterations=1)
    assert flow.dtype == torch.float32
    torch.testing.assert_close(flow, estimate_flow(rounded, *images, iterations=1))
    assert all(p.dtype == torch.float16 for p in half.parameters())


def test_clip_flows_are_those_of_its_pairs(model):
    frames = det("clip", (1, 3, 3, 128, 136)).clamp(-1, 1)
    forward, backward = estimate_flows(model, frames, iterations=1)
    assert forward.shape == backward.shape == (1, 2, 2, 128, 136)
    for i in range(2):
        a, b = frames[:, :, i], frames[:, :, i + 1]
        assert torch.equal(forward[:, :, i], estimate_flow(model, a, b, iterations=1))
        assert torch.equal(backward[:, :, i], estimate_flow(model, b, a, iterations=1))


def test_several_pairs_at_once_give_the_same(model, monkeypatch):
    """As on a GPU; the last of three batches is a short one."""
    frames = det("flow/clip", (1, 3, 6, 128, 136)).clamp(-1, 1)
    done: list[tuple[int, int]] = []
    for network in (model, BuiltinFlow()):
        alone = estimate_flows(network, frames, iterations=2)
        with monkeypatch.context() as patched:
            patched.setattr(estimate, "pairs_at_once", lambda *_: 2)
            patched.setattr(estimate, "_one_by_one", lambda _: False)
            together = estimate_flows(network, frames, 2, lambda *at: done.append(at))
        for a, b in zip(alone, together, strict=True):
            # A batch adds in another order. At a picture's edge, where the lookup of a network
            # with random weights jumps, the last bit shows in a few places.
            apart = (b - a).abs() > 1e-4 + 1e-4 * a.abs()
            assert apart.float().mean() < 1e-3
        assert done[-6:] == [(2, 10), (4, 10), (6, 10), (8, 10), (9, 10), (10, 10)]


def test_pairs_at_once(monkeypatch):
    cuda = torch.device("cuda")
    free: dict[str, int | None] = {"now": 0}
    monkeypatch.setattr(memory, "free", lambda _: free["now"])
    assert estimate.pairs_at_once(cuda, 180, 320) == 1
    free["now"] = 8 * 2**30
    assert estimate.pairs_at_once(cuda, 180, 320) == 16
    with memory.sparing(memory.Sparing.HALVES):
        assert estimate.pairs_at_once(cuda, 180, 320) == 1
    assert estimate.pairs_at_once(cuda, 1080, 1920) == 1
    assert estimate.pairs_at_once(torch.device("cpu"), 180, 320) == 1
    assert estimate.pairs_at_once(cuda, 180, 320, room=8 * 2**30) == 16
    assert estimate.pairs_at_once(cuda, 180, 320, room=0) == 1
    free["now"] = None
    assert estimate.pairs_at_once(cuda, 180, 320) == 1


def test_every_frame_is_encoded_once(model):
    frames = det("clip", (1, 3, 4, 128, 136)).clamp(-1, 1)
    calls = []
    hooks = [
        part.register_forward_hook(lambda part, *_: calls.append(part))
        for part in (model.feature_encoder, model.context_encoder)
    ]
    flows = estimate_flows(model, frames, iterations=3)
    for hook in hooks:
        hook.remove()
    assert calls.count(model.feature_encoder) == calls.count(model.context_encoder) == 4
    for i in range(3):
        pair = frames[:, :, i], frames[:, :, i + 1]
        for flow, (a, b) in zip(flows, (pair, pair[::-1]), strict=True):
            expected = model(a, b, num_flow_updates=3)[-1]
            torch.testing.assert_close(flow[:, :, i], expected, rtol=1e-4, atol=1e-4)


def test_correlations_are_not_kept(model):
    estimate_flows(model, torch.zeros(1, 3, 2, 128, 128), iterations=1)
    assert not model.corr_block.corr_pyramid


def test_one_frame_has_no_flow():
    forward, backward = estimate_flows(UnitFlow(), torch.zeros(1, 3, 1, 24, 32))
    assert forward.shape == backward.shape == (1, 2, 0, 24, 32)


def test_progress_and_cancel():
    frames, calls = torch.zeros(1, 3, 4, 128, 128), []
    estimate_flows(
        UnitFlow(),
        frames,
        progress=lambda done, total: calls.append((done, total)),
        check_cancelled=lambda: calls.append("check"),
    )
    assert calls == [call for i in range(1, 7) for call in ("check", (i, 6))]

    class Cancelled(BaseException):
        pass

    def cancel():
        raise Cancelled

    probe = UnitFlow()
    with pytest.raises(Cancelled):
        estimate_flows(probe, frames, check_cancelled=cancel)
    assert probe.sizes == []


@pytest.mark.parametrize(
    ("shape1", "shape2", "says"),
    [
        ((1, 3, 128, 128), (1, 3, 128, 136), "one size"),
        ((1, 4, 128, 128), (1, 4, 128, 128), r"\(n, 3, h, w\)"),
        ((1, 3, 15, 128), (1, 3, 15, 128), "at least 16 px"),
    ],
)
def test_images_are_checked(shape1, shape2, says):
    with pytest.raises(InputError, match=says):
        estimate_flow(UnitFlow(), torch.zeros(shape1), torch.zeros(shape2))


def test_clips_are_checked():
    with pytest.raises(InputError, match="1, 3, t"):
        estimate_flows(UnitFlow(), torch.zeros(2, 3, 4, 128, 128))


def test_importing_the_core_leaves_torchvision_out():
    code = "import sys, uav_core.flow.estimate; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
