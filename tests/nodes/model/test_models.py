"""VAE, text encoder and flow model inside ComfyUI."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import graph
import pytest
import torch
from generated import det, generate, key_shapes
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("kind", ["vae_3d", "vae_video"])
def test_decode_node_equals_the_core(pack, models, kind):
    vae = pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / f"{kind}.safetensors"))
    images = graph.frames(4)
    samples = det("z", (1, 4, 4, graph.H, graph.W))
    node = pack.nodes.sampling.decode.VAEDecode.execute
    (result,) = node({"samples": samples}, vae, images, 0.5, 3, "none").result
    core = pack.uav_core.sampling.pipeline.decode(
        vae.first_stage_model, samples * 0.08333, images.permute(3, 0, 1, 2)[None] * 2 - 1, w=0.5
    )
    expected = core[0].permute(1, 2, 3, 0) / 2 + 0.5
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert result.shape == (4, 4 * graph.H, 4 * graph.W, 3)


def test_the_decode_nodes_self_ensemble_is_the_cores(pack, models):
    vae = pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / "vae_video.safetensors"))
    images, samples = graph.frames(2), det("z", (1, 4, 2, graph.H, graph.W))
    node = pack.nodes.sampling.decode.VAEDecode.execute
    given = {"samples": samples}, vae, images, 1.0, 3, "none"
    (result,) = node(*given, self_ensemble=True).result
    frames = images.permute(3, 0, 1, 2)[None] * 2 - 1
    core = pack.uav_core.sampling.pipeline.decode(
        vae.first_stage_model, samples * 0.08333, frames, self_ensemble=True
    )
    expected = core[0].permute(1, 2, 3, 0) / 2 + 0.5
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
    assert (result - node(*given).result[0]).abs().max() > 1e-3


def test_colour_fix_brings_the_mean_back(pack, models):
    vae = pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / "vae_3d.safetensors"))
    images = graph.frames(3)
    samples = {"samples": det("z", (1, 4, 3, graph.H, graph.W))}
    node = pack.nodes.sampling.decode.VAEDecode.execute
    plain, fixed = (
        node(samples, vae, images, 1.0, 3, mode).result[0] for mode in ("none", "adain")
    )
    wanted = images.mean((1, 2))
    assert (plain.mean((1, 2)) - wanted).abs().max() > 0.02
    assert (fixed.mean((1, 2)) - wanted).abs().max() < 0.02


def test_native_nodes_decode_and_encode_vae_3d(pack, models):
    native: Any = importlib.import_module("nodes")  # ComfyUI's, not the pack's
    vae = pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / "vae_3d.safetensors"))
    samples = det("z", (1, 4, 4, graph.H, graph.W))
    (result,) = native.VAEDecode().decode(vae, {"samples": samples})
    ours = pack.nodes.sampling.decode.VAEDecode.execute(
        {"samples": samples}, vae, graph.frames(4), 1.0, 3, "none"
    ).result[0]
    assert torch.equal(result, ours)
    (latent,) = native.VAEEncode().encode(vae, result)
    assert latent["samples"].shape == samples.shape


def text_encoder(layers: int, width: int = 64) -> tuple[dict[str, torch.Tensor], Any]:
    """Weights of a small CLIP text model, and transformers' own model of them."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=width * 2,
        num_attention_heads=width // 64,
        num_hidden_layers=layers,
        projection_dim=width,
        hidden_act="gelu",
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = CLIPTextModel(config).eval()
    shapes = {k: tuple(v.shape) for k, v in model.state_dict().items() if "position_ids" not in k}
    model.load_state_dict(generate("text.", shapes), strict=False)
    weights = generate("text.", shapes)
    named = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in weights.items()}
    return named, model


@pytest.mark.parametrize("layers", [23, 24])
def test_text_encoder_equals_transformers(pack, tmp_path, layers, caplog):
    weights, model = text_encoder(layers)
    save_file(weights, tmp_path / "text.safetensors")
    clip = pack.nodes.loaders.load.load_text_encoder(str(tmp_path / "text.safetensors"))
    tokens = clip.tokenize("a rabbit, best quality, extremely detailed")
    ids = torch.tensor([[token for token, _ in tokens["h"][0]]])
    assert ids.shape == (1, 77)
    assert ids[0, -1] == 0, "padded with id 0"
    (conditioning,) = (clip.encode_from_tokens_scheduled(tokens),)
    with torch.inference_mode():
        states = model(ids, output_hidden_states=True).hidden_states[23]
        norm = getattr(model, "text_model", model).final_layer_norm
        expected = norm(states)
    # ComfyUI keeps text encoders in fp16; another layer or mask would be off by 1.
    torch.testing.assert_close(conditioning[0][0], expected, rtol=1e-2, atol=1e-2)
    assert "missing" not in caplog.text


def test_text_encoder_of_another_model_is_refused(pack, tmp_path):
    weights, _ = text_encoder(12)
    save_file(weights, tmp_path / "text.safetensors")
    with pytest.raises(pack.uav_core.CheckpointError, match=r"12 layers.*expected all 23"):
        pack.nodes.loaders.load.load_text_encoder(str(tmp_path / "text.safetensors"))


def test_text_encoder_folder_is_listed_and_found(pack, models):
    folder = models / "upscale_a_video" / "text_encoder"
    folder.mkdir(exist_ok=True)
    (folder / "pytorch_model.bin").write_bytes(b"")
    files = pack.nodes.base.files
    assert list(files.folders("text_encoders")) == ["text_encoder/"]
    found = files.resolve_folder("text_encoder/", "text_encoders")
    assert found == str(folder / "pytorch_model.bin")
    with pytest.raises(pack.uav_core.InputError):
        files.resolve_folder("../..", "text_encoders")


@pytest.fixture(scope="module")
def raft_files(tmp_path_factory):
    """The same RAFT in the release's layout and in torchvision's."""
    from uav_core.weights.raft import raft_to_torchvision

    folder = tmp_path_factory.mktemp("raft")
    shapes = {k.removeprefix("module."): v for k, v in key_shapes("raft_things").items()}
    weights = generate("raft.", shapes)
    torch.save({f"module.{k}": v for k, v in weights.items()}, folder / "raft-things.pth")
    torch.save(raft_to_torchvision(weights), folder / "raft_large.pth")
    return folder


def test_flow_of_our_loader_and_of_comfyui_is_the_same(pack, raft_files):
    import folder_paths

    pytest.importorskip("comfy_extras.nodes_void", reason="this ComfyUI has no optical flow nodes")
    from comfy_extras.nodes_void import OpticalFlowLoader

    folder_paths.add_model_folder_path("optical_flow", str(raft_files))
    ours = pack.nodes.loaders.load.LoadFlowModel.execute("raft-things.pth").result[0]
    native = OpticalFlowLoader.execute("raft_large.pth").args[0]
    images = graph.frames(3)
    node = pack.nodes.sampling.propagate.Propagation.execute
    plans = [node(m, images, "last 1", 0.5, 0.001, 0.05, 2).result[0] for m in (ours, native)]
    assert plans[0].flows is None, "nothing runs before a sampler asks"
    for a, b in zip(plans[0].estimate(), plans[1].estimate(), strict=True):
        assert a.shape == (1, 2, 2, graph.H, graph.W)
        torch.testing.assert_close(a, b)
    assert plans[0].estimate() is plans[0].flows, "kept for the next run"


def test_propagation_changes_the_chosen_steps_only(pack, models):
    unet = pack.nodes.model.unet.load_unet(str(models / "upscale_a_video" / "unet.safetensors"))
    module = pack.nodes.sampling.propagate
    images = graph.frames()
    still = torch.zeros(1, 2, graph.T - 1, graph.H, graph.W)
    clip = pack.nodes.base.inputs.video_frames(images)

    def run(steps):
        plan = module.FlowPropagation(
            None, clip, steps, module.PropagationParams(), flows=(still, still)
        )
        return graph.sample(pack, unet, images, propagation=plan)

    plain = graph.sample(pack, unet, images)
    assert torch.equal(run(""), plain)
    assert (run("last 1") - plain).abs().max() > 0.01


def test_first_file_of_every_loader_fits(pack, monkeypatch):
    files = pack.nodes.base.files
    named = replace(files.TAKEN["diffusion_models"], hints=("unet",))
    monkeypatch.setitem(files.TAKEN, "diffusion_models", named)

    def first(native):
        return next(name for name in files.choices(native) if not name.endswith(files.MARK))

    assert first("vae").startswith("vae_")
    assert first("diffusion_models").startswith("unet")


def test_every_socket_is_explained_and_inputs_are_bounded(pack):
    for node in pack.nodes.NODES:
        schema = node.define_schema()
        assert schema.node_id.startswith("UpscaleAVideo")
        assert schema.description
        for out in schema.outputs:
            assert out.tooltip, f"{schema.node_id}: {out.display_name or out.io_type}"
        for entry in schema.inputs:
            assert entry.tooltip, f"{schema.node_id}.{entry.id}"
            if type(entry).__qualname__ in ("Int.Input", "Float.Input"):
                assert entry.min is not None and entry.max is not None
                assert entry.min <= entry.default <= entry.max


@pytest.mark.parametrize(
    ("flag", "fast", "taken"),
    [
        (None, "", torch.float32),
        (None, "bf16", torch.bfloat16),
        (None, "fp16 bf16", torch.float16),
        ("bf16_vae", "", torch.bfloat16),
        ("fp32_vae", "fp16 bf16", torch.float32),
        ("fp16_vae", "bf16", torch.float16),
    ],
)
def test_default_precision_of_the_vae_is_comfyuis(pack, models, monkeypatch, flag, fast, taken):
    import comfy.model_management as mm
    from comfy.cli_args import args

    for name in ("fp16", "bf16"):
        is_fast = name in fast
        monkeypatch.setattr(mm, f"should_use_{name}", lambda device=None, is_fast=is_fast: is_fast)
    computes_half(pack, monkeypatch)
    if flag:
        monkeypatch.setattr(args, flag, True)
    load = pack.nodes.loaders.load.LoadVAE.execute
    vae = load("vae_3d.safetensors", "default").result[0]
    assert vae.vae_dtype == taken
    assert {p.dtype for p in vae.first_stage_model.parameters()} == {taken}
    wider = torch.bfloat16 if "bf16" in fast else torch.float32
    assert vae.first_stage_model.wider == (wider if taken == torch.float16 else None)
    # Named on the node, or left out as by forms made before there was a choice: as it was.
    assert load("vae_3d.safetensors", "bf16").result[0].vae_dtype == torch.bfloat16
    assert load("vae_3d.safetensors").result[0].vae_dtype == torch.float32


def computes_half(pack, monkeypatch):
    """As on a device that computes fp16, which a CPU does very slowly."""
    monkeypatch.setattr(pack.nodes.model.vae, "usable", lambda dtype, device: dtype)
    monkeypatch.setattr(pack.nodes.model.vae, "is_nvidia", lambda device: True)


def test_only_nvidia_cards_take_fp16_by_themselves(pack, monkeypatch):
    import comfy.model_management as mm

    vae = pack.nodes.model.vae
    for name in ("fp16", "bf16"):
        monkeypatch.setattr(mm, f"should_use_{name}", lambda device=None: True)
    card, apple = torch.device("cuda"), torch.device("mps")
    monkeypatch.setattr(torch.version, "hip", None)
    assert vae.default_dtype(card) == torch.float16 == vae.usable(torch.float16, card)
    assert vae.default_dtype(apple) == torch.bfloat16
    assert vae.usable(torch.float16, apple) == torch.float32
    monkeypatch.setattr(torch.version, "hip", "7.1")
    assert vae.default_dtype(card) == torch.bfloat16


def test_a_cpu_takes_fp32_for_fp16(pack, models, monkeypatch):
    path = str(models / "upscale_a_video" / "vae_3d.safetensors")
    assert pack.nodes.model.vae.VideoVAE(path, torch.float16).vae_dtype == torch.float32
    computes_half(pack, monkeypatch)
    assert pack.nodes.model.vae.VideoVAE(path, torch.float16).vae_dtype == torch.float16


@pytest.mark.parametrize("kind", ["vae_3d", "vae_video"])
def test_decoding_and_encoding_in_fp16(pack, models, monkeypatch, kind):
    computes_half(pack, monkeypatch)
    path = str(models / "upscale_a_video" / f"{kind}.safetensors")
    samples, images = {"samples": det("z", (1, 4, 1, 16, 16))}, graph.frames(1)[:, :16, :16]
    node = pack.nodes.sampling.decode.VAEDecode.execute
    vaes = [pack.nodes.model.vae.VideoVAE(path, dtype) for dtype in (torch.float32, torch.float16)]
    exact, found = (node(samples, vae, images, 1.0, 3, "none").result[0] for vae in vaes)
    assert 0 < (found - exact).abs().max() < 5e-3
    exact, found = (vae.encode(images.repeat(1, 4, 4, 1)) for vae in vaes)
    assert 0 < (found - exact).abs().max() < 5e-3 * exact.abs().max()


@pytest.mark.parametrize("has_bf16", [False, True])
def test_what_overflows_in_fp16_is_decoded_again(
    pack, models, tmp_path, monkeypatch, caplog, has_bf16
):
    import comfy.model_management as mm

    computes_half(pack, monkeypatch)
    monkeypatch.setattr(mm, "should_use_bf16", lambda device=None: has_bf16)
    weights = load_file(models / "upscale_a_video" / "vae_3d.safetensors")
    key = "decoder.up_blocks.0.resnets.0.conv2.weight"
    weights[key] *= 4e6 / weights[key].abs().max()  # fits into fp16 when it is made smaller
    path = str(tmp_path / "large.safetensors")
    save_file(weights, path)
    samples, images = {"samples": det("z", (1, 4, 2, 16, 16))}, graph.frames(2)[:, :16, :16]
    node = pack.nodes.sampling.decode.VAEDecode.execute
    vaes = [pack.nodes.model.vae.VideoVAE(path, dtype) for dtype in (torch.float32, torch.float16)]
    exact, found = (node(samples, vae, images, 1.0, 1, "none").result[0] for vae in vaes)
    assert caplog.text.count("overflowed in fp16") == 1  # of two groups
    assert ("bfloat16" if has_bf16 else "float32") in caplog.text
    assert (found - exact).abs().max() < (0.1 if has_bf16 else 5e-3)
    network = vaes[1].first_stage_model
    assert network.precision == torch.float16  # the next frames begin in fp16 again
    network.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(pack.uav_core.errors.NumericalError, match="Frame 0 of the result"):
        node(samples, vaes[1], images, 1.0, 1, "none")
    assert network.precision == torch.float16


def test_what_overflows_is_encoded_again(pack, models, tmp_path, monkeypatch, caplog):
    computes_half(pack, monkeypatch)
    weights = load_file(models / "upscale_a_video" / "vae_3d.safetensors")
    key = "encoder.down_blocks.0.resnets.0.conv2.weight"
    weights[key] *= 4e6 / weights[key].abs().max()
    path = str(tmp_path / "large.safetensors")
    save_file(weights, path)
    pixels = graph.frames(1).repeat(1, 2, 2, 1)
    dtypes = torch.float32, torch.float16
    exact, found = (pack.nodes.model.vae.VideoVAE(path, d).encode(pixels) for d in dtypes)
    assert "overflowed in fp16" in caplog.text
    assert (found - exact).abs().max() < 5e-3 * exact.abs().max()


def test_a_long_videos_engine_decodes_again_in_wider(pack, models, monkeypatch):
    core = pack.uav_core
    computes_half(pack, monkeypatch)
    folder = models / "upscale_a_video"
    flow = pack.nodes.loaders.load.LoadFlowModel.execute("built-in (no weights)").result[0]
    unet = pack.nodes.model.unet.load_unet(str(folder / "unet.safetensors"))
    vae = pack.nodes.model.vae.VideoVAE(str(folder / "vae_3d.safetensors"), torch.float16)
    params = core.longvideo.LongVideoParams(propagation_steps="")
    texts = graph.texts()
    engine = pack.nodes.longvideo.engine.ComfyEngine(unet, vae, *texts, flow, params)
    given = det("z", (1, 4, 1, 16, 16)), det("f", (1, 3, 1, 16, 16)).clamp(-1, 1)
    setting = core.sampling.ladder.Setting()
    half, need = engine.decode(*given, setting), vae.memory_required(1, 16, 16)
    wider = engine.in_wider()
    assert wider is not None
    with wider:
        wide = engine.decode(*given, setting)
        assert vae.memory_required(1, 16, 16) > need, "fp32 takes more"
    again = engine.decode(*given, setting)
    assert torch.equal(half, again) and 0 < (wide - half).abs().max() < 5e-3


def test_vae_attention_of_comfyui_is_the_cores(pack):
    import comfy.ldm.modules.diffusionmodules.model as comfy_vae

    q, k, v = (det(name, (2, 48, 64)) for name in "qkv")
    own = pack.uav_core.models.attention.scaled_dot_product(q, k, v, 1)
    attend = pack.nodes.model.vae.attention(torch.device("xpu"))
    torch.testing.assert_close(attend(q, k, v, 1), own, rtol=1e-5, atol=1e-5)
    for kernel in (comfy_vae.normal_attention, comfy_vae.pytorch_attention):
        out = pack.nodes.model.vae.by_channels(kernel)(q, k, v, 1)
        torch.testing.assert_close(out, own, rtol=1e-5, atol=1e-5)


def test_force_channels_last(pack, models, monkeypatch):
    """It asked weights of five axes for a layout of four."""
    from comfy.cli_args import args

    path = str(models / "upscale_a_video" / "unet.safetensors")
    expected = graph.sample(pack, pack.nodes.model.unet.load_unet(path), graph.frames(3), steps=1)
    monkeypatch.setattr(args, "force_channels_last", True)
    unet = pack.nodes.model.unet.load_unet(path)
    network = unet.model.diffusion_model
    assert network.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    result = graph.sample(pack, unet, graph.frames(3), steps=1)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)
