"""Memory that is computed without computing is the memory that computing takes."""

import pytest
import torch
from ways import as_on_a_gpu

from bench.cases.case import TINY_UNET, TINY_VAE, generated, unet_inputs
from bench.measure.memory import measure_peak
from bench.studies.real_sizes import META, measure_real_sizes, unet_peak, vae_peak, weight_bytes
from bench.studies.report import real_sizes_table
from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import TemporalVAE

CPU = torch.device("cpu")


@torch.inference_mode()
def test_a_pass_takes_on_a_cpu_what_was_computed(monkeypatch):
    """Of a network that the CPU runs as a GPU does."""
    as_on_a_gpu(monkeypatch)
    network = generated(TemporalUNet(TINY_UNET, device="meta"), CPU)
    inputs = [x[:1] for x in unet_inputs(TINY_UNET, 16, CPU)]
    measured = measure_peak(lambda: network(*inputs), CPU).live
    computed = unet_peak(TemporalUNet(TINY_UNET, dtype=torch.float32, device=META), 1, 16, 16)
    assert measured == pytest.approx(computed, rel=0.01)


@torch.inference_mode()
def test_it_grows_with_pixels_and_halves():
    network = TemporalUNet(TINY_UNET, dtype=torch.float32, device=META)
    # From two: newer PyTorch leaves out a copy where there is one alone.
    small, more, large = (unet_peak(network, *at) for at in ((2, 32, 32), (4, 32, 32), (2, 32, 64)))
    assert more == pytest.approx(2 * small, rel=0.05)
    assert large == pytest.approx(2 * small, rel=0.05)
    vae = TemporalVAE(TINY_VAE, device=META)
    assert vae_peak(vae, 90, 320) == pytest.approx(2 * vae_peak(vae, 90, 160), rel=0.05)


@pytest.fixture(scope="module")
def quick():
    return measure_real_sizes(quick=True)


def test_half_precision_takes_half(quick):
    weights, row = (held.bytes for held in quick)
    assert weights["U-Net pass, fp32"] == 2 * weights["U-Net pass, fp16"]
    assert row["one half, fp16"] < 0.6 * row["one half, fp32"]
    network = TemporalUNet(TINY_UNET, device=META)
    assert weight_bytes(network) == weights["U-Net pass, fp32"]


def test_table(quick):
    lines = real_sizes_table(quick).splitlines()
    assert lines[3].startswith("| 8x8 to 32x32 |") and len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
