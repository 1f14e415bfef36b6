"""The golden pipeline cases through ComfyUI's machinery."""

from __future__ import annotations

import graph
import pytest
import tiny
import torch
from golden_cases import GOLDEN, PIPELINE, pipeline_inputs
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def vae(pack, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "vae_3d.safetensors"
    save_file(tiny.vae_weights("vae_3d"), path)
    return pack.nodes.model.vae.VideoVAE(str(path))


@pytest.mark.parametrize("name", PIPELINE)
def test_pipeline(pack, golden_unet, vae, name):
    case = pipeline_inputs(name)
    samples = graph.sample_case(pack, golden_unet, case)
    latents = samples * 0.08333
    torch.testing.assert_close(latents, GOLDEN[f"{name}/latents"], rtol=1e-3, atol=1e-3)
    if f"{name}/frames_out" in GOLDEN:
        images = vae.decode_video(samples, case["frames"])
        expected = GOLDEN[f"{name}/frames_out"][0].permute(1, 2, 3, 0) / 2 + 0.5
        torch.testing.assert_close(images, expected, rtol=1e-3, atol=1e-3)
