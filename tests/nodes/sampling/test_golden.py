"""The golden pipeline cases through ComfyUI's machinery."""

from __future__ import annotations

import graph
import pytest
import tiny
import torch
from golden_cases import GOLDEN, PIPELINE, pipeline_inputs
from safetensors.torch import save_file

from uav_core.sampling.pipeline import load_unet, sample


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


def test_weights_that_ask_for_trailing_time_steps(pack, tmp_path):
    weights = {**tiny.unet_weights(), "trailing_timesteps": torch.ones(1)}
    save_file(weights, tmp_path / "unet.safetensors")
    model = pack.nodes.model.unet.load_unet(str(tmp_path / "unet.safetensors"))
    case = pipeline_inputs(PIPELINE[0])
    latents = graph.sample_case(pack, model, case) * 0.08333
    torch.testing.assert_close(latents, sample(load_unet(weights), **case), rtol=1e-3, atol=1e-3)
    assert (latents - GOLDEN[f"{PIPELINE[0]}/latents"]).abs().max() > 0.01
    found = pack.nodes.sampling.sample.Sigmas.execute(2, model).result[0]
    assert torch.equal(found, pack.uav_core.sampling.schedule.sigmas(2, trailing=True))
    # What ComfyUI's own nodes save has it too.
    assert "trailing_timesteps" in model.model.diffusion_model.state_dict()
