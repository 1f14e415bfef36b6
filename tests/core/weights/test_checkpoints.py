import io
import pickle
import zipfile

import pytest
import torch
from generated import key_shapes
from safetensors.torch import save_file
from torch import nn

from uav_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    UnreadableCheckpointError,
    UnsafeCheckpointError,
    WrongCheckpointError,
)
from uav_core.weights.checkpoints import (
    Kind,
    canonical,
    describe,
    detect,
    load_checkpoint,
    strict_load,
    unwrap,
)
from uav_core.weights.files import read_state_dict

LAYOUTS = {"unet": "unet", "vae_3d": "vae_3d", "vae_video": "vae_video", "raft_things": "raft"}


def on_meta(shapes):
    return {key: torch.empty(tuple(shape), device="meta") for key, shape in shapes.items()}


def keys(*names, shape=(2, 2)):
    return {name: torch.zeros(shape) for name in names}


# --- layouts -------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "kind"), LAYOUTS.items())
def test_released_layout_is_detected_whole(layout, kind):
    shapes = key_shapes(layout)
    checkpoint = load_checkpoint(on_meta(shapes), kind)
    assert checkpoint.kind == kind
    assert set(checkpoint.state_dict) == {key.removeprefix("module.") for key in shapes}
    assert canonical(checkpoint.state_dict) == checkpoint.state_dict


def test_describe_is_one_line_with_counts():
    assert describe(on_meta(key_shapes("vae_video"))) == (
        "looks like a temporal VAE with low-res guidance (vae_video): "
        "296 tensors, 113.8 M parameters"
    )


def test_lavie_names_become_ours():
    ours = key_shapes("unet")
    renames = (("_temp_block", "_temporal_block"), ("_3d_temporal.", "_3d_t."))
    theirs = {}
    for key, shape in ours.items():
        for new, old in (*renames, ("_3d_spatial.", "_3d_s.")):
            key = key.replace(new, old)
        theirs[key] = shape
    assert len(set(theirs) - set(ours)) > 100
    state_dict = load_checkpoint({"ema": on_meta(theirs)}, "unet").state_dict
    assert {key: list(tensor.shape) for key, tensor in state_dict.items()} == ours


def test_newer_vae_attention_becomes_ours():
    ours = key_shapes("vae_3d")
    newer = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
    theirs = {}
    for key, shape in ours.items():
        for old, new in newer.items():
            if f".attentions.0.{old}." in key:
                key = key.replace(f".{old}.", f".{new}.")
                shape = [*shape, 1, 1] if len(shape) == 2 else shape
        theirs[key] = shape
    assert len(set(theirs) - set(ours)) == 16
    state_dict = load_checkpoint(on_meta(theirs), Kind.VAE_3D).state_dict
    assert {key: list(tensor.shape) for key, tensor in state_dict.items()} == ours


@pytest.mark.parametrize("prefix", ["", "text_model.", "cond_stage_model.transformer.text_model."])
def test_text_encoder_names_become_hugging_face_ones(prefix):
    names = ["encoder.layers.0.self_attn.q_proj.weight", "final_layer_norm.weight"]
    names += ["embeddings.token_embedding.weight", "embeddings.position_ids"]
    given = keys(*(prefix + name for name in names))
    state_dict = load_checkpoint(given, "text_encoder").state_dict
    assert set(state_dict) == {"text_model." + name for name in names[:3]}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd: {"state_dict": sd, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}},
        lambda sd: {"model_state_dict": sd},
        lambda sd: {"ema": sd, "model": {"other": torch.ones(1)}},
        lambda sd: {"params_ema": sd, "params": {"other": torch.ones(1)}},
        lambda sd: {"epoch": 1, "model": {"module": sd}},
        lambda sd: {"anything": sd},
        lambda sd: {"module." + key: value for key, value in sd.items()},
        lambda sd: {"state_dict": {"module.model." + key: value for key, value in sd.items()}},
        lambda sd: {"model.diffusion_model." + key: value for key, value in sd.items()},
        lambda sd: {"_orig_mod." + k: v for k, v in sd.items()} | {"null_text_embedding": 0},
    ],
)
def test_unwrap_opens_wrappers_and_prefixes(wrap):
    bare = keys(*(f"down_blocks.{i}.weight" for i in range(12)))
    assert unwrap(wrap(bare)) == bare


def test_unwrap_keeps_prefixes_that_tell_networks_apart():
    parts = ("model.diffusion_model.", "first_stage_model.")
    whole = keys(*(part + name for part in parts for name in "abcd"))
    assert unwrap(whole) == whole
    assert detect(whole) is Kind.SD_CHECKPOINT


def test_null_text_embedding_stays():
    given = on_meta(key_shapes("unet") | {"null_text_embedding": [77, 1024]})
    assert "null_text_embedding" in load_checkpoint(given, "unet").state_dict


STRANGERS = {
    "sd_x4_unet": keys("conv_in.weight", shape=(8, 7, 3, 3)) | keys("down_blocks.0.x"),
    "sd_unet": keys("conv_in.weight", "time_embedding.linear_1.weight", shape=(8, 4, 3, 3)),
    "sd_vae": keys("encoder.down_blocks.3.resnets.0.conv1.weight", "encoder.conv_in.weight")
    | keys("decoder.conv_in.weight"),
    "lora": keys("lora_unet_mid_block.lora_down.weight"),
    "raft_small": keys("fnet.conv1.weight", "update_block.gru.convz.weight"),
    "clip": keys("text_model.encoder.layers.0.self_attn.q_proj.weight", "vision_model.x"),
    "open_clip": keys("transformer.resblocks.0.ln_1.weight"),
    "seedvr2": keys("vid_in.proj.weight"),
    "video_model": keys("down_blocks.0.motion_modules.0.x"),
    "image_upscaler": keys("body.0.rdb1.conv1.weight"),
    "unknown": keys("layer.weight"),
}


@pytest.mark.parametrize(("kind", "state_dict"), STRANGERS.items())
def test_strangers_are_named(kind, state_dict):
    assert detect(state_dict) == kind
    with pytest.raises(WrongCheckpointError) as raised:
        load_checkpoint(state_dict, ("vae_3d", "vae_video"))
    assert Kind(kind).label in str(raised.value)
    assert "expected a temporal VAE" in str(raised.value)


def test_swapped_parts_are_refused():
    with pytest.raises(WrongCheckpointError, match=r"temporal VAE .*expected .*temporal U-Net"):
        load_checkpoint(on_meta(key_shapes("vae_video")), Kind.UNET)


# --- files ---------------------------------------------------------------------------------

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(7)}


def write(path, file_format, tensors=TENSORS):
    if file_format == "safetensors":
        save_file(tensors, path, metadata={"who": "me"})
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=file_format == "zip")
    return path


FORMATS = ("safetensors", "zip", "legacy")


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".pth", ".ckpt", ""])
def test_format_is_told_by_content(tmp_path, file_format, suffix):
    tensors, metadata = read_state_dict(write(tmp_path / f"w{suffix}", file_format))
    assert metadata == ({"who": "me"} if file_format == "safetensors" else {})
    assert tensors.keys() == TENSORS.keys()
    for key, tensor in tensors.items():
        assert torch.equal(tensor, TENSORS[key]) and tensor.dtype == TENSORS[key].dtype


@pytest.mark.parametrize("file_format", FORMATS)
def test_cut_at_any_byte(tmp_path, file_format):
    whole = write(tmp_path / "whole", file_format).read_bytes()
    for size in range(len(whole)):
        path = tmp_path / "cut"
        path.write_bytes(whole[:size])
        with pytest.raises(UnreadableCheckpointError):
            read_state_dict(path)


def test_parameters_come_as_plain_tensors(tmp_path):
    path = write(tmp_path / "p.pth", "zip", {"w": nn.Parameter(torch.ones(2))})
    tensor = read_state_dict(path)[0]["w"]
    assert type(tensor) is torch.Tensor and not tensor.requires_grad


def test_damaged_storage_is_named(tmp_path):
    """A pickle that claims a larger tensor than the file holds must not read past its end."""
    whole = write(tmp_path / "w", "zip", {"w": torch.zeros(60000)}).read_bytes()
    size, larger = b"M\x60\xea", b"M\xff\xff"
    assert whole.count(size) == 2  # the storage's size and the tensor's shape
    (tmp_path / "d").write_bytes(whole.replace(size, larger))
    with pytest.raises(CheckpointError):
        read_state_dict(tmp_path / "d")


class _CreatesFile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _evil_files(evil):
    for name, new in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save({"w": torch.ones(2), "x": evil}, buffer, _use_new_zipfile_serialization=new)
        yield name, buffer.getvalue()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"pickle{protocol}", pickle.dumps({"x": evil}, protocol=protocol)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_is_refused_and_not_run(tmp_path):
    proof = tmp_path / "proof"
    for name, content in _evil_files(_CreatesFile(proof)):
        path = tmp_path / f"{name}.bin"
        path.write_bytes(content)
        with pytest.raises(UnsafeCheckpointError, match="open"):
            read_state_dict(path)
        assert not proof.exists(), name
    pickle.loads(content)["x"].close()
    assert proof.exists(), "the pickle is harmless, so this test proves nothing"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "program.pt")
    with pytest.raises(UnsafeCheckpointError, match="TorchScript"):
        read_state_dict(tmp_path / "program.pt")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git-LFS"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (bytes(range(7, 250)) * 20, "neither"),
        (b"\x80\x02", "neither"),
        (pickle.dumps({"a": 1}, protocol=2), "damaged"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, says):
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(UnreadableCheckpointError, match=says):
        read_state_dict(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UnreadableCheckpointError, match="does not exist"):
        read_state_dict(tmp_path / "nothing.pth")
    with pytest.raises(UnreadableCheckpointError, match="folder"):
        read_state_dict(tmp_path)


def test_packed_download_and_tensorless_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "release.zip", "w") as archive:
        archive.writestr("unet/readme.txt", "hello")
    with pytest.raises(UnreadableCheckpointError, match="unpack"):
        read_state_dict(tmp_path / "release.zip")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(UnreadableCheckpointError, match="no named tensors"):
        read_state_dict(tmp_path / "epoch.pth")
    endless = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "endless.pth")
    with pytest.raises(UnreadableCheckpointError, match="no named tensors"):
        read_state_dict(tmp_path / "endless.pth")


# --- strict loading ------------------------------------------------------------------------


def test_strict_load_lists_every_kind_of_fault():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    given = {"0.weight": torch.zeros(3, 5), "0.bias": torch.zeros(3), "1.weight": torch.zeros(1, 3)}
    with pytest.raises(CheckpointMismatchError) as raised:
        strict_load(module, given | {"extra": torch.zeros(1)}, "file.bin")
    message = str(raised.value)
    assert "file.bin does not fit Sequential" in message
    assert "1 missing (1.bias)" in message and "1 unexpected (extra)" in message
    assert "1 of wrong shape (0.weight (3, 5) instead of (3, 2))" in message
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[key])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_strict_load_fills_the_module(device):
    module = nn.Linear(2, 3, device=device)
    given = {"weight": torch.randn(3, 2), "bias": torch.randn(3)}
    strict_load(module, given, "x")
    assert torch.equal(module.weight, given["weight"]) and torch.equal(module.bias, given["bias"])
