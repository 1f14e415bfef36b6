"""The golden pipeline cases through ComfyUI's machinery."""

from __future__ import annotations

import pytest
import torch
from golden_cases import GOLDEN, PIPELINE, pipeline_inputs

from uav_core import schedule


@pytest.fixture(scope="module")
def unet(pack, models):
    return pack.nodes.model.load_unet(str(models / "upscale_a_video" / "unet.safetensors"))


@pytest.fixture(scope="module")
def vae(pack, models):
    return pack.nodes.vae.VideoVAE(str(models / "upscale_a_video" / "vae_3d.safetensors"))


def run(pack, unet, case, **options):
    """Sample a golden case; the LATENT's samples."""
    condition = pack.nodes.condition.condition
    low_res = schedule.noise_low_res(case["frames"], case["low_res_noise"], case["noise_level"])
    negative, positive = (
        condition([[text[None], {}]], low_res, case["noise_level"]) for text in case["context"]
    )
    propagation = None
    if "flows" in case:
        module = pack.nodes.propagate
        propagation = module.FlowPropagation(
            None,
            case["frames"],
            ",".join(map(str, case["propagation_steps"])),
            module.PropagationParams(),
            flows=case["flows"],
        )
    return pack.nodes.sample.sample_segments(
        unet,
        positive,
        negative,
        torch.zeros_like(case["noise"]),
        case["noise"],
        steps=case["steps"],
        guidance=case["guidance"],
        propagation=propagation,
        **options,
    )


@pytest.mark.parametrize("name", PIPELINE)
def test_pipeline(pack, unet, vae, name):
    case = pipeline_inputs(name)
    samples = run(pack, unet, case)
    latents = samples * 0.08333
    torch.testing.assert_close(latents, GOLDEN[f"{name}/latents"], rtol=1e-3, atol=1e-3)
    if f"{name}/frames_out" in GOLDEN:
        images = vae.decode_video(samples, case["frames"])
        expected = GOLDEN[f"{name}/frames_out"][0].permute(1, 2, 3, 0) / 2 + 0.5
        torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-3)
