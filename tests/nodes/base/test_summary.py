"""What a finished step says of itself."""

from __future__ import annotations

import re

import graph
import pytest


@pytest.fixture
def said(pack, monkeypatch):
    lines = []
    for module in (pack.nodes.sampling.sample, pack.nodes.sampling.decode):
        monkeypatch.setattr(module, "show_status", lambda node, text: lines.append(text))
    return lines


def test_sampler_and_decoder_tell_frames_rate_and_memory(pack, models, said):
    own = models / "upscale_a_video"
    unet = pack.nodes.model.unet.load_unet(str(own / "unet.safetensors"))
    vae = pack.nodes.model.vae.VideoVAE(str(own / "vae_3d.safetensors"))
    images = graph.frames(2, 16, 16)
    samples = graph.sample(pack, unet, images, steps=4, guidance=1.0)
    pack.nodes.sampling.decode.VAEDecode.execute({"samples": samples}, vae, images, 1.0, 3, "none")
    sampled, decoded = said
    assert re.match(r"Sampled 2 frames in [\d.:]+ .*, [\d.e-]+ frames per second\.", sampled)
    assert decoded.startswith("Decoded 2 frames in ")
    assert "RAM " in sampled


def test_the_nodes_know_their_number(pack):
    from comfy_api.latest import io

    for node in (pack.nodes.sampling.sample.SegmentSampler, pack.nodes.sampling.decode.VAEDecode):
        assert io.Hidden.unique_id in node.define_schema().hidden


def test_peak_memory_grows_with_what_is_held(pack):
    import torch

    peak = pack.uav_core.devices.memory.peak_ram
    before = peak()
    if before is None:
        pytest.skip("this system does not say")
    held = torch.ones(80 * 2**20)
    assert peak() >= before
    assert peak() > 300 * 2**20 and held.numel()


def test_one_frame_is_one(pack):
    assert "Made 1 frame in" in pack.nodes.base.summary.RunSummary().to_text("Made", 1)
