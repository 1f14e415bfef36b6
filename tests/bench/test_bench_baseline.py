"""A benchmark's baseline is worth something only if it computes the same thing."""

import pytest
import tiny
import torch
from generated import det

from bench.cases import baseline
from bench.cases.weights import Weights
from bench.measure.memory import LiveBytes, measure_peak
from bench.studies.precision import psnr
from bench.studies.scaling import Point, exponent
from uav_core import propagate
from uav_core.sampling.pipeline import sample
from uav_core.sampling.segments import plan_segments

CPU = torch.device("cpu")


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("shape", [(2, 8, 8, 16), (1, 1, 8, 8), (1, 3, 9, 13)])
def test_unet_is_the_same(shape):
    b, t, h, w = shape
    inputs = (
        det("bench/latent", (b, 4, t, h, w)),
        torch.full((b,), 500),
        det("bench/low_res", (b, 3, t, h, w)),
        tiny.context()[:b],
        torch.full((b,), 120),
    )
    close(baseline.unet(Weights(tiny.unet_weights()), *inputs), tiny.unet()(*inputs))


@pytest.mark.parametrize("kind", tiny.VAES)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_vae_decode_is_the_same(kind, strength):
    z, low_res = det("bench/z", (1, 4, 3, 6, 8)), det("bench/frames", (1, 3, 3, 6, 8))
    weights = Weights(tiny.vae_weights(kind))
    plain = baseline.vae_decode(weights, z, low_res, strength)
    close(plain, tiny.vae(kind).decode(z, low_res, strength))


@pytest.mark.parametrize("size", [(8, 12), (1, 5)])
def test_propagation_is_the_same(size):
    x0 = det("bench/x0", (1, 4, 5, *size))
    # A drift that the way back undoes, but for noise that breaks the consistency in places.
    drift = torch.tensor([1.3, -0.7]).view(1, 2, 1, 1, 1)
    forward = drift + 0.2 * det("bench/forward", (1, 2, 4, *size))
    backward = -drift + 0.2 * det("bench/backward", (1, 2, 4, *size))
    plain = baseline.propagate(x0, forward, backward)
    close(plain, propagate(x0, forward, backward))
    assert not torch.equal(plain, x0)


@pytest.mark.parametrize("frames", [5, 14, 20])
def test_a_run_is_the_same(frames):
    shape = (1, 4, frames, 8, 8)
    clip, text = det("bench/clip", (1, 3, *shape[2:])).clamp(-1, 1), tiny.context()
    start, low_res_noise = det("bench/start", shape), det("bench/low_res_noise", (1, 3, *shape[2:]))
    plain = baseline.sample(
        Weights(tiny.unet_weights()), clip, text, start, low_res_noise, 2, 6.0, 120
    )
    args = {"steps": 2, "guidance": 6.0, "noise": start, "low_res_noise": low_res_noise}
    close(plain, sample(tiny.unet(), clip, text, **args))


def test_the_baseline_repeats_the_last_segment():
    assert len(baseline.segments(20)) == len(plan_segments(20)) + 1 == 4


def test_relative_bias_of_long_clips_is_the_same():
    from uav_core.models.temporal import relative_buckets

    table = torch.arange(32.0)[:, None]
    bias = baseline.relative_bias(table, 80)
    assert torch.equal(bias[0].long(), relative_buckets(80))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_peak_of_a_matmul_chain(mode):
    size = 64
    a, kb = torch.randn(size, size), 4 * size * size

    def chain():
        b = a @ a  # 1 matrix lives
        c = b @ b  # 2
        del b
        c.relu_()  # in place
        d = (c @ a).t()[:3]  # 2, the view is none of its own
        return d

    with mode():
        peak = measure_peak(chain, CPU)
    assert (peak.live, peak.allocated) == (2 * kb, None)


def test_inputs_and_what_died_are_not_counted():
    a = torch.randn(100)
    with LiveBytes() as counted:
        a.view(10, 10).mul_(2)
        assert counted.current == 0
        kept = torch.zeros(1000)
        for _ in range(5):
            torch.ones(500)
        assert counted.current == 4000
        del kept
    assert (counted.current, counted.peak) == (0, 6000)


def test_composite_operations_are_seen_inside():
    x, weight = torch.randn(1, 2, 16, 8), torch.randn(24, 8)
    with LiveBytes() as counted:
        q, k, v = torch.nn.functional.linear(x, weight).chunk(3, dim=-1)
        assert counted.current == 4 * 2 * 16 * 24
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    assert counted.peak >= 4 * (2 * 16 * 24 + out.numel())


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_power_of_growth_is_found(power):
    frames = [Point(n, 64, 0.1 * n**power, 0) for n in (8, 32, 128)]
    pixels = [Point(8, side, 0.1 * side ** (2 * power), 0) for side in (64, 128, 256)]
    assert exponent(frames, "frames") == pytest.approx(power)
    assert exponent(pixels, "pixels") == pytest.approx(power)


def test_psnr_is_relative_to_the_exact_range():
    exact = torch.tensor([0.0, 4.0])
    assert psnr(exact + 0.04, exact) == pytest.approx(40, abs=1e-3)
