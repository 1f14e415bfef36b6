"""Dropdowns list what fits, and a node says what is there."""

from __future__ import annotations

import shutil
import zipfile

import pytest
import tiny
import torch
from safetensors.torch import save_file


@pytest.fixture
def folder(pack, tmp_path, monkeypatch):
    """Model folders of their own, one of each set up as extra paths."""
    import folder_paths

    roots = {}
    for name in pack.uav_core.weights.survey.folder_names():
        roots[name] = tmp_path / "extra" / name
        roots[name].mkdir(parents=True)
        _, extensions = folder_paths.folder_names_and_paths[name]
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, name, ([str(roots[name])], extensions)
        )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return roots


def options(node, index=0):
    listed = node.define_schema().inputs[index].options
    return [name for name in listed if "(included)" not in name and "(no weights)" not in name]


def test_lists_hold_only_what_fits(pack, folder):
    native = folder["diffusion_models"]
    save_file(tiny.unet_weights(), native / "zz renamed.safetensors")
    torch.save(tiny.unet_weights(), native / "zz pickled.pth")
    foreign = {
        "flux": {"double_blocks.0.img_attn.qkv.weight": torch.zeros(2, 2)},
        "sd": {
            "conv_in.weight": torch.zeros(2, 4, 3, 3),
            "time_embedding.linear_1.weight": torch.zeros(2, 2),
        },
        "vae_3d": tiny.vae_weights("vae_3d"),
    }
    for name, tensors in foreign.items():
        save_file(tensors, native / f"{name}.safetensors")
    torch.save(foreign["sd"], native / "sd.ckpt")
    (native / "uav_unet.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{half")
    (native / "other.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{half")
    listed = options(pack.nodes.loaders.load.LoadUNet)
    assert listed == ["uav_unet.safetensors", "zz pickled.pth", "zz renamed.safetensors"]


def test_own_folder_hides_only_what_is_known_to_be_something_else(pack, folder):
    own = folder["upscale_a_video"]
    save_file(tiny.unet_weights(), own / "a.safetensors")
    save_file(tiny.vae_weights("vae_video"), own / "b.safetensors")
    (own / "c.bin").write_bytes(b"?")
    save_file({"who.knows": torch.zeros(1)}, own / "d.safetensors")
    load = pack.nodes.loaders.load
    assert options(load.LoadUNet) == ["a.safetensors", "c.bin", "d.safetensors"]
    assert options(load.LoadVAE) == ["b.safetensors", "c.bin", "d.safetensors"]
    assert options(load.LoadFlowModel) == ["c.bin", "d.safetensors"]


def test_a_file_of_the_same_name_does_not_stand_in_the_way(pack, folder):
    save_file(tiny.vae_weights("vae_3d"), folder["upscale_a_video"] / "model.safetensors")
    save_file(tiny.unet_weights(), folder["diffusion_models"] / "model.safetensors")
    load = pack.nodes.loaders.load
    assert options(load.LoadUNet) == options(load.LoadVAE) == ["model.safetensors"]
    assert load.LoadUNet.execute("model.safetensors", "default").result[0].model
    assert load.LoadVAE.execute("model.safetensors").result[0].params


TEXT = {f"text_model.encoder.layers.{i}.self_attn.q_proj.weight": torch.ones(1) for i in range(23)}
RAFT = {"fnet.conv1.weight": torch.ones(1), "update_block.gru.convz1.weight": torch.ones(1)}


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def authors(pack, folder):
    """Calls ``names_of`` for the authors' weights, of which the converted files are there."""
    import folder_paths

    save_file(tiny.unet_weights(), folder["diffusion_models"] / "uav_unet.safetensors")
    for kind, name in (("vae_3d", "a per frame"), ("vae_video", "of 3d scenes")):
        save_file(tiny.vae_weights(kind), folder["vae"] / f"{name}.safetensors")
    save_file(TEXT, folder["text_encoders"] / "uav_text_encoder.safetensors")

    def names():
        folder_paths.filename_list_cache.clear()
        return pack.nodes.loaders.load.names_of("authors'")

    return names


def test_authors_weights_are_found_by_what_they_are(pack, folder, authors):
    """None that is included, and the VAE that sees time, whatever its name."""
    load = pack.nodes.loaders.load
    found = ("uav_unet.safetensors", "of 3d scenes.safetensors", "uav_text_encoder.safetensors")
    assert authors() == (*found, load.BUILTIN_FLOW)
    # ComfyUI runs the node again when this changes.
    before = load.LoadAll.fingerprint_inputs("authors'", weight_dtype="default")
    assert before == load.LoadAll.fingerprint_inputs("authors'", weight_dtype="default")
    save_file(RAFT, folder["optical_flow"] / "flow.safetensors")
    assert authors() == (*found, "flow.safetensors")
    after = load.LoadAll.fingerprint_inputs("authors'", weight_dtype="default")
    (folder["text_encoders"] / "uav_text_encoder.safetensors").unlink()
    with pytest.raises(
        pack.uav_core.InputError, match=r"no file for text_encoders.*Put the release"
    ):
        authors()
    without = load.LoadAll.fingerprint_inputs("authors'", weight_dtype="default")
    assert len({before, after, without}) == 3


def test_a_whole_file_that_fits_is_taken_first(pack, folder, authors):
    whole, own = authors(), folder["upscale_a_video"]
    for name in ("unet", "vae", "LaVie", "safety_checker"):
        (own / name).mkdir()
    half = own / "unet" / "unet_video.safetensors"
    save_file(tiny.unet_weights(), half)
    torch.save(tiny.vae_weights("vae_3d"), own / "vae" / "vae_3d.bin")
    halve(half)
    halve(own / "vae" / "vae_3d.bin")
    save_file(tiny.unet_weights(), own / "LaVie" / "model.safetensors")
    strange = {"vision_model.x": torch.zeros(1)}
    torch.save(strange, own / "safety_checker" / "pytorch_model.bin")
    assert authors() == whole
    listed = options(pack.nodes.loaders.load.LoadTextEncoder)
    assert "LaVie/" not in listed
    assert {"safety_checker/", "vae/vae_3d.bin"} <= set(listed), "unknown: to be chosen by hand"
    # Better than nothing, as its error says what to do.
    (folder["diffusion_models"] / "uav_unet.safetensors").unlink()
    (own / "LaVie" / "model.safetensors").unlink()
    assert authors()[0] == "unet/unet_video.safetensors"


def test_the_file_of_a_folder_may_be_a_link_and_is_the_one_that_fits(pack, folder):
    files = pack.nodes.base.files
    inside, elsewhere = folder["upscale_a_video"] / "text_encoder", folder["vae"] / "blob"
    inside.mkdir()
    save_file(TEXT, elsewhere)
    link = inside / "model.safetensors"
    link.symlink_to(elsewhere)
    with files.opened("text_encoder/", "text_encoders") as path:
        assert path == str(link)
    link.unlink()
    link.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    torch.save(TEXT, inside / "pytorch_model.bin")
    with files.opened("text_encoder/", "text_encoders") as path:
        assert path == str(inside / "pytorch_model.bin")


def test_a_damaged_archive_takes_no_loader_away(pack, folder):
    path = folder["upscale_a_video"] / "raft.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("raft/data.pkl", b"names" * 100)
    start = 30 + len("raft/data.pkl")
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xff" * 4 + data[start + 4 :])
    load = pack.nodes.loaders.load
    for loader in (load.LoadUNet, load.LoadVAE, load.LoadTextEncoder, load.LoadFlowModel):
        assert "raft.pth" in options(loader)
    assert load.names_of("included")[3] == load.BUILTIN_FLOW


def test_check_weights_reports_extra_folders(pack, folder):
    node = pack.nodes.loaders.weights.CheckWeights
    save_file(tiny.unet_weights(), folder["diffusion_models"] / "my unet.safetensors")
    result = node.execute(True)
    (text,) = result.result
    assert str(folder["diffusion_models"] / "my unet.safetensors") in text
    assert "SHA-256" in text and "missing" in text
    assert result.ui.as_dict()["text"] == (text,)
    shutil.rmtree(folder["diffusion_models"])
    assert "my unet" not in node.execute(False).result[0]
