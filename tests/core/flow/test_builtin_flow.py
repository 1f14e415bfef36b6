"""Pictures moved by known amounts, and the sample clip."""

import math

import av
import pytest
import torch
from generated import det

from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import estimate_flow, estimate_flows
from uav_core.sampling.propagation import PropagationParams, consistent, warp

H, W = 64, 96
WAVES = 24
BORDER = 10  # what moved out of the picture can only be guessed there

STILL = torch.eye(2)


def positions(h=H, w=W):
    """(h, w, 2) as x, y from the centre."""
    y, x = torch.meshgrid(
        torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij"
    )
    return torch.stack([x, y], dim=-1)


def texture(name, at):
    """(1,3,h,w) in [-1, 1]: a sum of waves 5 to 40 px long, exact at any position."""
    uniform = det(f"texture {name}", (4, WAVES)).erf().add(1).div(2)
    length, angle = 5 * 8 ** uniform[0], 2 * math.pi * uniform[1]
    steps = 2 * math.pi / length * torch.stack([angle.cos(), angle.sin()])
    channels = [
        (at @ steps + 2 * math.pi * (uniform[2] + channel * uniform[3])).sin().mean(-1) * 3
        for channel in range(3)
    ]
    return torch.stack(channels)[None].tanh()


def moved(matrix, shift, name="one"):
    """Two pictures and the flow of content that goes from p to matrix p + shift."""
    at, shift = positions(), torch.tensor(shift)
    source = (at - shift) @ torch.linalg.inv(matrix).T
    flow = (at @ matrix.T + shift - at).permute(2, 0, 1)[None]
    return texture(name, at), texture(name, source), flow


def turn(degrees):
    a = math.radians(degrees)
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


def errors(flow, expected):
    """(n,h,w): length of the difference, in pixels."""
    return (flow - expected).norm(dim=1)


@pytest.fixture(scope="module")
def model():
    return BuiltinFlow()


@pytest.mark.parametrize(
    ("matrix", "shift", "tolerance"),
    [
        (STILL, (0.0, 0.0), 0.001),
        (STILL, (0.4, -0.6), 0.05),
        (STILL, (-3.3, 1.8), 0.05),
        (STILL, (9.6, -4.2), 0.1),
        (turn(4), (0.0, 0.0), 0.1),
        (1.06 * STILL, (0.5, -0.3), 0.1),
    ],
    ids=["still", "sub-pixel", "small", "large", "rotation", "zoom"],
)
def test_known_motion(model, matrix, shift, tolerance):
    first, second, expected = moved(matrix, shift)
    error = errors(estimate_flow(model, first, second), expected)
    assert error[:, BORDER:-BORDER, BORDER:-BORDER].mean() < tolerance


def test_two_layers(model):
    """A disc that moves left before ground that moves right."""
    ground = moved(STILL, (1.5, 0.5), "ground")
    disc = moved(STILL, (-4.0, 1.0), "disc")
    at = positions()
    before = at.norm(dim=-1) < 20
    after = (at - torch.tensor([-4.0, 1.0])).norm(dim=-1) < 20
    first = torch.where(before, disc[0], ground[0])
    second = torch.where(after, disc[1], ground[1])
    expected = torch.where(before, disc[2], ground[2])
    error = errors(estimate_flow(model, first, second), expected)
    away = (at.norm(dim=-1) - 20).abs() > 7
    away[:BORDER], away[-BORDER:], away[:, :BORDER], away[:, -BORDER:] = 0, 0, 0, 0
    assert error[0, away].mean() < 0.1
    assert error[0, away].quantile(0.99) < 0.5


def test_plain_pictures_stand_still(model):
    plain = torch.full((1, 3, H, W), 0.3)
    assert estimate_flow(model, plain, plain).abs().max() < 1e-4


def test_noise_is_no_motion(model):
    """Where the picture says little, noise must not be taken for motion."""
    first, second, _ = moved(STILL, (0.0, 0.0))
    first = first + 0.04 * det("noise 0", first.shape)
    second = second + 0.04 * det("noise 1", second.shape)
    assert errors(estimate_flow(model, first, second), torch.zeros(1, 2, H, W)).mean() < 0.15


@pytest.mark.parametrize("size", [(16, 16), (17, 33), (48, 150)])
def test_any_size_is_taken_as_it_is(model, monkeypatch, size):
    sizes = []
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda a, b, **options: sizes.append(a.shape[-2:]) or forward(a, b, **options),
    )
    first = texture("one", positions(*size))
    flow = estimate_flow(model, first, first.roll(1, dims=-1))
    assert sizes == [size]
    assert flow.shape == (1, 2, *size) and flow.isfinite().all()


def test_called_like_raft(model):
    first, second, _ = moved(STILL, (1.0, 0.0))
    predictions = model(first, second, num_flow_updates=5)
    assert len(predictions) == 1 and predictions[0].shape == (1, 2, H, W)
    assert torch.equal(predictions[0], estimate_flow(model, first, second, iterations=5))


def test_repeats_exactly_alone_or_in_a_batch(model):
    a, b = moved(STILL, (1.0, 0.5)), moved(turn(3), (0.0, 0.0), "two")
    batch = estimate_flow(model, torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]))
    assert torch.equal(
        batch, estimate_flow(model, torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]]))
    )
    alone = torch.cat([estimate_flow(model, *pair[:2]) for pair in (a, b)])
    torch.testing.assert_close(batch, alone, rtol=1e-3, atol=1e-3)


def test_half_precision_images_and_module():
    first, second, expected = moved(STILL, (2.0, 1.0))
    flow = estimate_flow(BuiltinFlow().half(), first.half(), second.half())
    assert flow.dtype == torch.float32
    assert errors(flow, expected)[:, BORDER:-BORDER, BORDER:-BORDER].mean() < 0.1


def test_explains_real_video(model, sample_clip):
    """On the sample clip most of the change is motion, and most of it consistent both ways."""
    with av.open(str(sample_clip)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:12:3]
    clip = torch.stack([torch.from_numpy(frame) for frame in frames]).permute(3, 0, 1, 2)[None]
    clip = clip.float() / 127.5 - 1
    forward, backward = estimate_flows(model, clip)
    still = (clip[:, :, 1:] - clip[:, :, :-1]).square().mean()
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    left, shares = [], []
    for i in range(len(frames) - 1):
        there, back = forward[:, :, i], backward[:, :, i]
        difference = warp(clip[:, :, i + 1], there, "bilinear") - clip[:, :, i]
        left.append(difference[inside].square().mean())
        shares.append(consistent(there, back, PropagationParams()).float().mean())
    assert torch.stack(left).mean() < still / 3
    assert torch.stack(shares).mean() > 0.75
