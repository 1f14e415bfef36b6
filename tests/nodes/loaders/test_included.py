"""The weights that come with the pack, through the nodes."""

from __future__ import annotations

import importlib
import shutil
from typing import Any

import graph
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from scripts.env.layout import ROOT
from uav_core.weights import included

FLAWED = "blur, worst quality"
OTHER = "best quality, extremely detailed"
LIMIT = 25e6
NAMES = [included.UNET, included.VAE_VIDEO, included.VAE_3D, included.TEXT]
LOADERS = {
    "LoadUNet": included.UNET,
    "LoadVAE": included.VAE_VIDEO,
    "LoadTextEncoder": included.TEXT,
}


def first_choice(node: Any) -> str:
    return node.define_schema().inputs[0].options[0]


@pytest.fixture(scope="module")
def unet(pack):
    loader = pack.nodes.loaders.load.LoadUNet
    return loader.execute(first_choice(loader), "default").result[0]


@pytest.fixture(scope="module")
def vae(pack):
    loader = pack.nodes.loaders.load.LoadVAE
    return loader.execute(first_choice(loader)).result[0]


@pytest.fixture(scope="module")
def clip(pack):
    loader = pack.nodes.loaders.load.LoadTextEncoder
    return loader.execute(first_choice(loader)).result[0]


def encode(clip: Any, text: str) -> Any:
    native: Any = importlib.import_module("nodes")  # ComfyUI's, not the pack's
    return native.CLIPTextEncode().encode(clip, text)[0]


# --- the files -----------------------------------------------------------------------------


def test_together_they_are_small():
    assert sum(included.path_of(name).stat().st_size for name in NAMES) < LIMIT
    stray = {path.name for path in included.FOLDER.iterdir()} - {
        f"{name}.safetensors" for name in NAMES
    }
    assert {name for name in stray if name.endswith(".safetensors")} == set()


@pytest.mark.parametrize("name", NAMES)
def test_each_names_its_licence_and_is_finite(name):
    with safe_open(included.path_of(name), framework="pt") as file:
        assert file.metadata()["uav.licence"] == "MIT"
    for key, value in load_file(included.path_of(name)).items():
        assert torch.isfinite(value).all(), key
        # A table of frequencies, whose rounding would turn late frames.
        assert value.dtype == torch.float32 or not key.endswith("freqs"), key


# --- the loaders ---------------------------------------------------------------------------


def test_every_loader_offers_them_first(pack):
    for node, name in LOADERS.items():
        loader = getattr(pack.nodes.loaders.load, node)
        assert first_choice(loader) == f"{name} (included)"
    vaes = pack.nodes.loaders.load.LoadVAE.define_schema().inputs[0].options
    assert vaes[:2] == [f"{included.VAE_VIDEO} (included)", f"{included.VAE_3D} (included)"]
    assert set(vaes[2:]) >= {"vae_3d.safetensors", "vae_video.safetensors"}


def test_a_users_files_do_not_stand_in_for_them(pack, models):
    """Neither a file of the same name nor one named like the entry."""
    own = models / "upscale_a_video"
    fakes = [own / f"{included.UNET}.safetensors", own / f"{included.UNET} (included)"]
    try:
        for fake in fakes:
            shutil.copy(own / "vae_3d.safetensors", fake)
        with pack.nodes.base.files.opened(
            f"{included.UNET} (included)", "diffusion_models"
        ) as path:
            assert path == str(included.path_of(included.UNET))
        with pack.nodes.base.files.opened(
            f"{included.UNET}.safetensors", "diffusion_models"
        ) as path:
            assert path == str(fakes[0])
    finally:
        for fake in fakes:
            fake.unlink()


@pytest.mark.parametrize("name", [f"../{included.UNET} (included)", "absent (included)", ""])
def test_only_listed_entries_are_opened(pack, name):
    with (
        pytest.raises(pack.uav_core.InputError, match="choose another file"),
        pack.nodes.base.files.opened(name, "diffusion_models"),
    ):
        pass


@pytest.mark.parametrize("damage", ["missing", "cut short", "pointer"])
@pytest.mark.parametrize("node", LOADERS)
def test_a_missing_or_damaged_file_says_how_to_get_it_back(
    pack, monkeypatch, tmp_path, node, damage
):
    name = LOADERS[node]
    broken = tmp_path / f"{name}.safetensors"
    if damage == "cut short":
        whole = included.path_of(name).read_bytes()
        broken.write_bytes(whole[: len(whole) // 2])
    elif damage == "pointer":
        broken.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    monkeypatch.setattr(pack.uav_core.weights.included, "FOLDER", tmp_path)
    loader = getattr(pack.nodes.loaders.load, node)
    options = {"weight_dtype": "default"} if node == "LoadUNet" else {}
    with pytest.raises(pack.uav_core.CheckpointError) as caught:
        loader.execute(f"{name} (included)", **options)
    assert str(broken) in str(caught.value)
    assert "git checkout weights" in str(caught.value)
    assert "Download" not in str(caught.value)


def test_all_sizes_come_from_the_files(unet, vae, clip):
    weights = load_file(included.path_of(included.UNET))
    null = weights.pop("null_text_embedding")
    # Trained weights may be made anew in other sizes; nothing but the files may say which.
    assert unet.model.params.channels[0] == weights["conv_in.weight"].shape[0]
    assert unet.model.params.context_dim == null.shape[-1]
    loaded = unet.model.diffusion_model.state_dict()
    assert {k: v.shape for k, v in loaded.items()} == {k: v.shape for k, v in weights.items()}
    assert vae.params.temporal
    assert {p.dtype for p in vae.first_stage_model.parameters()} == {torch.float32}
    assert encode(clip, "")[0][0].shape == (1, *null.shape)


def test_decoding_in_bf16_is_hard_to_see(pack, vae):
    """Frames of the sample clip, encoded and decoded again: the difference to fp32 is bounded."""
    reader = pytest.importorskip("av").open(str(ROOT / "assets" / "sample.mp4"))
    small = [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in reader.decode(video=0)][:3]
    clip = torch.stack(small).permute(3, 0, 1, 2)[None, :, :, 24:32, 40:48].float() / 127.5 - 1
    large = clip.repeat_interleave(4, -1).repeat_interleave(4, -2)
    half = pack.nodes.loaders.load.LoadVAE.execute(
        f"{included.VAE_VIDEO} (included)", "bf16"
    ).result[0]
    assert {p.dtype for p in half.first_stage_model.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        latent = vae.first_stage_model.encode(large)
        whole, rounded = (v.decode_video(latent, clip) for v in (vae, half))
    assert rounded.dtype == torch.float32
    psnr = -10 * (whole - rounded).square().mean().log10().item()
    assert 40 < psnr < 80, psnr


def test_precision_is_checked(pack):
    with pytest.raises(pack.uav_core.errors.InputError, match="fp8"):
        pack.nodes.loaders.load.LoadVAE.execute(f"{included.VAE_VIDEO} (included)", "fp8")


def test_the_per_frame_vae_is_one(pack):
    vae = pack.nodes.loaders.load.LoadVAE.execute(f"{included.VAE_3D} (included)").result[0]
    assert not vae.params.temporal
    latent = torch.zeros(1, 4, 1, 8, 8)
    assert vae.decode(latent).shape == (1, 1, 32, 32, 3)


# --- the texts -----------------------------------------------------------------------------


def test_a_text_is_read_for_flaws_alone(clip):
    flawed, other = encode(clip, FLAWED)[0][0], encode(clip, OTHER)[0][0]
    stored = load_file(included.path_of(included.TEXT))
    assert torch.equal(flawed[0], stored["negative_text_embedding"].float())
    assert torch.equal(other[0], stored["null_text_embedding"].float())
    assert not torch.equal(flawed, other)
    assert torch.equal(encode(clip, "a rabbit")[0][0], other)


def test_the_log_says_how_little_is_read(pack, caplog):
    with caplog.at_level("INFO"):
        pack.nodes.loaders.load.LoadTextEncoder.execute(f"{included.TEXT} (included)")
    (line,) = (r.getMessage() for r in caplog.records if "names flaws" in r.getMessage())
    assert included.TEXT in line


def test_the_empty_text_of_the_unet_is_that_of_the_text_file():
    """Open texts and a text without flaws are the same to the U-Net."""
    unet, text = (load_file(included.path_of(name)) for name in (included.UNET, included.TEXT))
    stored = (file["null_text_embedding"].float() for file in (unet, text))
    torch.testing.assert_close(*stored, rtol=1e-3, atol=1e-3)


def sample(pack: Any, unet: Any, positive: Any, negative: Any, guidance: float = 3.0) -> Any:
    images = graph.frames(3)
    made = graph.conditioned(pack, images, positive=positive, negative=negative)
    run = pack.nodes.sampling.sample.SegmentSampler.execute
    return run(unet, *made, 1, guidance, 9, 8, 2).result[0]["samples"]


def test_open_texts_take_the_null_text(pack, unet, clip):
    opened = sample(pack, unet, None, None)
    torch.testing.assert_close(
        opened, sample(pack, unet, encode(clip, OTHER), encode(clip, "")), rtol=1e-2, atol=1e-2
    )
    assert (opened - sample(pack, unet, None, encode(clip, FLAWED))).abs().max() > 1e-2


def test_native_nodes_pass_the_clip_on(pack, clip):
    import comfy.hooks
    import comfy.sd

    native: Any = importlib.import_module("nodes")
    plain = encode(clip, FLAWED)
    (shallow,) = native.CLIPSetLastLayer().set_last_layer(clip, -2)
    lora = {
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.ones(4, 2),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.ones(2, 4),
    }
    _, patched = comfy.sd.load_lora_for_models(None, clip, lora, 1.0, 1.0)
    for other in (shallow, patched, clip.clone()):
        assert torch.equal(encode(other, FLAWED)[0][0], plain[0][0])
    (averaged,) = native.ConditioningAverage().addWeighted(plain, encode(clip, OTHER), 0.5)
    assert averaged[0][0].shape == plain[0][0].shape
    (zero,) = native.ConditioningZeroOut().zero_out(plain)
    assert not zero[0][0].any()
    assert clip.encode_from_tokens(clip.tokenize("x"), return_pooled=True)[1] is None


def test_clip_save_writes_what_loads_again(pack, clip, tmp_path, monkeypatch):
    import folder_paths
    from comfy_extras.nodes_model_merging import CLIPSave

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    CLIPSave().save(clip, "saved")
    (path,) = tmp_path.glob("saved*.safetensors")
    again = pack.nodes.loaders.load.load_text_encoder(str(path))
    for text in (FLAWED, OTHER):
        assert torch.equal(encode(again, text)[0][0], encode(clip, text)[0][0])


def test_hooks_on_the_clip(pack, clip):
    import comfy.hooks
    from comfy_extras.nodes_hooks import SetClipHooks

    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    (hooked,) = SetClipHooks().apply_hooks(clip, True, True, hooks)
    plain = encode(clip, FLAWED)[0][0]
    for embedding, options in encode(hooked, FLAWED):
        assert torch.equal(embedding, plain)
        assert options["hooks"] is not None


# --- what does not fit ---------------------------------------------------------------------


def text_of(width: int) -> Any:
    return [[torch.zeros(1, 77, width), {}]]


def test_the_release_text_is_refused_with_the_entry_to_choose(pack, unet, clip):
    message = r"positive text is 1024 wide.*'uav_small_text \(included\)'.*authors' text_encoder"
    with pytest.raises(pack.uav_core.InputError, match=message):
        sample(pack, unet, text_of(1024), encode(clip, FLAWED))


def test_the_included_text_is_refused_by_another_unet(pack, clip):
    class Wide(pack.nodes.model.unet.UpscaleAVideoModel):
        params = pack.uav_core.models.unet.UNetParams()

        def __init__(self):
            nn.Module.__init__(self)

    with pytest.raises(
        pack.uav_core.InputError,
        match=r"expects 1024.*authors' text_encoder for the authors' U-Net",
    ):
        Wide().check_text(encode(clip, FLAWED)[0][0])


def test_native_samplers_are_told_as_well(pack, unet):
    import comfy.sample

    positive, negative, latent = graph.conditioned(
        pack, graph.frames(2), positive=text_of(64), negative=text_of(64)
    )
    noise = comfy.sample.prepare_noise(latent["samples"], 1)
    with pytest.raises(pack.uav_core.InputError, match="Load Text Encoder"):
        comfy.sample.sample(
            unet, noise, 1, 2.0, "euler", "normal", positive, negative, latent["samples"]
        )
