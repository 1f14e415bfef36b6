"""Dropdowns list what fits, and a node says what is there."""

from __future__ import annotations

import shutil

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
