"""Memory that is computed without computing is what computing takes, and what is asked for."""

import pytest
import torch
from ways import as_on_a_gpu

from bench.cases.case import TINY_UNET, generated, unet_inputs
from bench.measure.memory import measure_peak
from bench.studies.real_sizes import META, budget, fused, measure_real_sizes, peak, weight_bytes
from bench.studies.report import real_sizes_table
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams
from uav_core.weights.checkpoints import load_checkpoint
from uav_core.weights.included import UNET, VAE_VIDEO, path_of

CPU = torch.device("cpu")
HALF = {"unet": torch.float16, "vae": torch.bfloat16}


def network(weights: str, kind: str, dtype: torch.dtype) -> torch.nn.Module:
    """Of the released sizes, or of the included weights'."""
    if weights == "included":
        kinds = ("unet",) if kind == "unet" else ("vae_3d", "vae_video")
        sd = load_checkpoint(path_of(UNET if kind == "unet" else VAE_VIDEO), kinds).state_dict
        params = (UNetParams if kind == "unet" else VAEParams).from_state_dict(sd)
    else:
        params = UNetParams() if kind == "unet" else VAEParams()
    if isinstance(params, UNetParams):
        return TemporalUNet(params, dtype=dtype, device=META)
    return TemporalVAE(params, dtype=dtype, device=META, attend=fused)


@pytest.mark.parametrize("spared", [False, True])
@pytest.mark.parametrize("weights", ["released", "included"])
@pytest.mark.parametrize("kind", ["unet", "vae"])
@torch.inference_mode()
def test_what_is_asked_for_is_what_is_taken(kind, weights, spared):
    half = network(weights, kind, HALF[kind])
    taken, asked = peak(half, 180, 320, spared), budget(half, 180, 320, spared)
    assert taken < asked <= 1.3 * taken
    # By precision, frames and tiles.
    assert budget(network(weights, kind, torch.float32), 180, 320, spared) >= 1.8 * asked
    tile = budget(half, 128, 128, spared)
    assert tile < 0.4 * asked
    if not spared:
        taken = peak(half, 128, 128)
        assert taken < tile <= 1.3 * taken


def test_memory_once_measured_on_a_card():
    """One H100, before the way of a GPU was this one: GiB of pass and decode, without weights."""
    gib, (unet, vae) = 2**30, (network("released", kind, HALF[kind]) for kind in ("unet", "vae"))
    assert 7.1 - 1.3 < budget(unet, 180, 320) / gib < 1.1 * (9.1 - 1.3)
    assert 0.9 * (3.0 - 0.2) < budget(vae, 180, 320, spared=True) / gib < 1.1 * (3.0 - 0.2)
    exact = network("released", "vae", torch.float32)
    assert 0.9 * (5.9 - 0.4) < budget(exact, 180, 320, spared=True) / gib < 1.1 * (5.9 - 0.4)


@torch.inference_mode()
def test_a_pass_takes_on_a_cpu_what_was_computed(monkeypatch):
    """Of a network that the CPU runs as a GPU does."""
    as_on_a_gpu(monkeypatch)
    network = generated(TemporalUNet(TINY_UNET, device="meta"), CPU)
    inputs = unet_inputs(TINY_UNET, 16, CPU)
    measured = measure_peak(lambda: network(*inputs), CPU).live
    computed = peak(TemporalUNet(TINY_UNET, dtype=torch.float32, device=META), 16, 16)
    assert measured == pytest.approx(computed, rel=0.01)


@pytest.fixture(scope="module")
def quick():
    return measure_real_sizes(quick=True)


def test_half_precision_takes_half(quick):
    weights, row, asked, *_ = (held.bytes for held in quick)
    assert weights["U-Net pass, fp32"] == 2 * weights["U-Net pass, fp16"]
    for bytes_ in (row, asked):
        assert bytes_["U-Net pass, fp16"] < 0.6 * bytes_["U-Net pass, fp32"]
    network = TemporalUNet(TINY_UNET, device=META)
    assert weight_bytes(network) == weights["U-Net pass, fp32"]


def test_table(quick):
    lines = real_sizes_table(quick).splitlines()
    assert [line.split(" | ")[0] for line in lines[3:]] == [
        "| 16x16 to 64x64", "| asked for", "| 16x16 to 64x64, sparing", "| asked for"
    ]  # fmt: skip
    assert len({line.count("|") for line in lines}) == 1
