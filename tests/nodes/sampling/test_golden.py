"""The golden pipeline cases through ComfyUI's machinery."""

from __future__ import annotations

import graph
import pytest
import torch
from golden_cases import GOLDEN, PIPELINE, pipeline_inputs


@pytest.fixture(scope="module")
def vae(pack, models):
    return pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / "vae_3d.safetensors"))


@pytest.mark.parametrize("name", PIPELINE)
def test_pipeline(pack, unet, vae, name):
    case = pipeline_inputs(name)
    samples = graph.sample_case(pack, unet, case)
    latents = samples * 0.08333
    torch.testing.assert_close(latents, GOLDEN[f"{name}/latents"], rtol=1e-3, atol=1e-3)
    if f"{name}/frames_out" in GOLDEN:
        images = vae.decode_video(samples, case["frames"])
        expected = GOLDEN[f"{name}/frames_out"][0].permute(1, 2, 3, 0) / 2 + 0.5
        torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-3)
