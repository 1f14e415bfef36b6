"""Weight files are told by their headers, found in model folders, and reported."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from generated import generate, key_shapes
from safetensors.torch import save_file

from uav_core.weights import included
from uav_core.weights import survey as weight_survey
from uav_core.weights.check import table, usable
from uav_core.weights.checkpoints import Kind
from uav_core.weights.headers import fits, may_be_ours, read_header
from uav_core.weights.raft import raft_to_torchvision
from uav_core.weights.survey import model_folders, survey

ROOT = Path(__file__).parents[3]
NAMES = {
    "unet": "unet/unet_video.bin",
    "vae_3d": "vae/vae_3d.bin",
    "vae_video": "vae/vae_video.bin",
    "raft_things": "propagator/raft-things.pth",
}


def small(layout):
    """Every key of a released layout, each tensor of a few numbers."""
    shapes = {k: [min(n, 2) for n in s] for k, s in key_shapes(layout).items()}
    return generate(layout, {k: s for k, s in shapes.items() if not k.endswith("freqs")})


def text_encoder(layers):
    names = [f"encoder.layers.{i}.self_attn.q_proj.weight" for i in range(layers)]
    return {f"text_model.{name}": torch.ones(2, 2) for name in names}


@pytest.fixture
def models(tmp_path):
    """A models folder with the release unpacked in our folder, but for the text encoder."""
    for layout, name in NAMES.items():
        path = tmp_path / "models" / "upscale_a_video" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(small(layout), path, _use_new_zipfile_serialization=layout != "raft_things")
    return tmp_path / "models"


def states(found):
    return {
        part.kind.value: ["damaged" if file.fault else "whole" for file in files]
        for part, files in found.parts.items()
    }


# --- headers -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "zip", "old"])
@pytest.mark.parametrize("layout", NAMES)
def test_every_form_of_a_file_is_recognised_under_any_name(tmp_path, layout, form):
    path = tmp_path / "my favourite.ckpt"
    tensors = small(layout)
    if form == "safetensors":
        save_file(tensors, path)
    else:
        wrapped = {"state_dict": {f"module.{k}": v for k, v in tensors.items()}, "epoch": 3}
        torch.save(wrapped, path, _use_new_zipfile_serialization=form == "zip")
    header = read_header(path)
    assert header.kind == layout.removesuffix("_things") and not header.fault
    assert may_be_ours(path)
    if form == "safetensors":
        assert header.parameters == sum(t.numel() for t in tensors.values())


def test_other_kinds_of_ours_are_recognised_and_strangers_are_not(tmp_path):
    path = tmp_path / "flow.safetensors"
    raft = {k.removeprefix("module."): v for k, v in small("raft_things").items()}
    save_file(raft_to_torchvision(raft), path)
    assert read_header(path).kind is Kind.RAFT_TORCHVISION and may_be_ours(path)
    save_file(text_encoder(23), path)
    assert read_header(path).kind is Kind.TEXT_ENCODER and may_be_ours(path)
    text = included.path_of(included.TEXT)
    assert read_header(text).kind is Kind.QUALITY_TEXT and may_be_ours(text)
    save_file({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, path)
    assert not may_be_ours(path)
    assert may_be_ours(tmp_path / "gone")


def test_no_tensor_is_read(tmp_path):
    path = tmp_path / "huge.safetensors"
    save_file(small("vae_3d"), path)
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        file.truncate(8 + length)  # the header alone
    header = read_header(path)
    assert header.kind is Kind.VAE_3D
    assert "its header says" in header.fault


def test_a_pickle_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    for new in (True, False):
        path = tmp_path / f"{new}.bin"
        bomb = {**small("vae_3d"), "bomb": Bomb()}
        torch.save(bomb, path, _use_new_zipfile_serialization=new)
        assert read_header(path).kind is Kind.VAE_3D
        found = survey({"upscale_a_video": [tmp_path]})
        assert "could run code" in table(found)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x80\x02", b"<html>", b"\xff" * 8 + b"{", b"\x04" + b"\0" * 7 + b"{[]}"],
)
def test_what_is_no_weight_file_says_why(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    header = read_header(path)
    assert header.kind is None and header.fault
    assert read_header(tmp_path / "gone").kind is None


def test_headers_are_read_again_only_after_a_change(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file(small("vae_3d"), path)
    first = read_header(path)
    assert read_header(path) is first
    save_file(small("vae_video"), path)
    os.utime(path, ns=(1, 1))
    assert read_header(path).kind is Kind.VAE_VIDEO


@pytest.mark.parametrize(("layers", "fit"), [(12, False), (23, True), (24, True), (32, False)])
def test_only_the_right_text_encoder_fits(tmp_path, layers, fit):
    save_file(text_encoder(layers), tmp_path / "model.safetensors")
    assert fits(read_header(tmp_path / "model.safetensors"), [Kind.TEXT_ENCODER]) == fit


# --- surveys -------------------------------------------------------------------------------


def test_survey_tells_whole_damaged_renamed_and_missing(models):
    own = models / "upscale_a_video"
    (models / "vae").mkdir()
    save_file(small("vae_3d"), models / "vae" / "renamed.safetensors")
    for name in (NAMES["unet"], NAMES["raft_things"]):
        data = (own / name).read_bytes()
        (own / name).write_bytes(data[: len(data) * 2 // 3])
    save_file({"x.lora_up.weight": torch.zeros(1)}, own / "style.safetensors")
    found = survey(model_folders(models))
    assert states(found) == {
        "unet": ["damaged"],
        "vae_3d": ["whole", "whole"],
        "vae_video": ["whole"],
        "raft": ["damaged"],
        "text_encoder": [],
    }
    assert [file.path.name for file in found.others] == ["style.safetensors"]
    text = table(found)
    assert not usable(found)
    for words in (
        "missing: put it at models/upscale_a_video/text_encoder/pytorch_model.bin",
        "models/text_encoders/uav_text_encoder.safetensors",
        "github.com/sczhou/Upscale-A-Video",
        "S-Lab License 1.0 (non-commercial)",
        "a LoRA",
        "The included weights are ready",
    ):
        assert words in text


def test_damage_inside_a_file_is_found(models):
    path = models / "upscale_a_video" / NAMES["vae_video"]
    tensors = small("vae_video")
    tensors["decoder.conv_in.weight"] = torch.full((4000,), 1.25)
    torch.save(tensors, path)
    data = path.read_bytes()
    where = data.index(torch.full((100,), 1.25).numpy().tobytes()) + 200
    path.write_bytes(data[:where] + b"\0\0\0\0" + data[where + 4 :])
    assert states(survey(model_folders(models)))["vae_video"] == ["damaged"]
    assert states(survey(model_folders(models), checksums=False))["vae_video"] == ["whole"]


@pytest.mark.parametrize("damaged", ["names", "numbers"])
def test_damage_inside_compressed_data_is_found(models, damaged):
    """PyTorch's files are not compressed, but packed again or damaged they can seem to be."""
    path = models / "upscale_a_video" / NAMES["vae_video"]
    with zipfile.ZipFile(path) as archive:
        contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    victim = next(
        n for n in contents if n.endswith("/data.pkl" if damaged == "names" else "/data/0")
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            method = zipfile.ZIP_DEFLATED if name == victim else zipfile.ZIP_STORED
            archive.writestr(name, content, method)
        start = archive.getinfo(victim).header_offset + 30 + len(victim)
    data = path.read_bytes()
    path.write_bytes(data[:start] + b"\xff\xff" + data[start + 2 :])
    assert states(survey(model_folders(models)))["vae_video"] == ["damaged"]


def test_old_folders_and_endings_are_searched_as_comfyui_does(tmp_path):
    for name, layout in (("unet/mine.sft", "unet"), ("vae/x.safetensors", "vae_3d")):
        (tmp_path / name).parent.mkdir()
        save_file(small(layout), tmp_path / name)
    (tmp_path / "clip").mkdir()
    save_file(text_encoder(23), tmp_path / "clip" / "te.sft")
    (tmp_path / "upscale_a_video").mkdir()
    assert usable(survey(model_folders(tmp_path)))


def test_files_are_read_once_for_their_checksum(models):
    read = []

    def look():
        read.clear()
        return survey(
            model_folders(models), progress=lambda done, total: read.append((done, total))
        )

    sizes = [p.stat().st_size for p in (models / "upscale_a_video").rglob("*.*") if p.is_file()]
    found = look()
    path = models / "upscale_a_video" / NAMES["unet"]
    by_path = {file.path: file for files in found.parts.values() for file in files}
    assert by_path[path].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read[-1] == (sum(sizes), sum(sizes))
    first = len(read)
    assert look() == found
    assert len(read) < first, "only a step for each file"
    torch.save(small("unet") | {"extra.weight": torch.zeros(2)}, path)
    look()
    assert (models / "upscale_a_video" / ".weights-sha256.json").is_file()


def test_cancelling_ends_the_survey(models):
    class Cancelled(Exception):
        pass

    def cancel():
        raise Cancelled

    with pytest.raises(Cancelled):
        survey(model_folders(models), check_cancelled=cancel)


def test_included_files_are_checked_against_what_they_were(tmp_path, monkeypatch):
    sums = (included.FOLDER / "SHA256SUMS").read_text().splitlines()
    for line in sums:
        digest, name = line.split()
        assert hashlib.sha256((included.FOLDER / name).read_bytes()).hexdigest() == digest, (
            "new weights? then: cd weights && sha256sum *.safetensors > SHA256SUMS"
        )
    assert len(sums) == 4
    folder = Path(shutil.copytree(included.FOLDER, tmp_path / "weights"))
    monkeypatch.setattr(included, "FOLDER", folder)
    monkeypatch.setattr(weight_survey, "SUMS", folder / "SHA256SUMS")
    (folder / "uav_small_text.safetensors").unlink()
    damaged = folder / "uav_small_unet.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    text = table(survey(model_folders(tmp_path / "models")))
    assert "it is missing. The file came with this pack" in text
    assert "it was changed or damaged (its checksum differs). The file came with this pack" in text
    assert "The included weights are ready" not in text


def test_command_reports_and_converts(models):
    own = models / "upscale_a_video" / "text_encoder"
    own.mkdir()
    torch.save(text_encoder(23), own / "pytorch_model.bin")

    def run(*arguments):
        command = [sys.executable, "-m", "uav_core.weights", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = run(models, "--convert")
    assert done.returncode == 0, done.stderr
    assert "The authors' weights are ready to use." in done.stdout
    for name in ("diffusion_models/uav_unet", "vae/uav_vae_3d", "text_encoders/uav_text_encoder"):
        assert str(models / f"{name}.safetensors") in done.stdout
    digest = hashlib.sha256((own / "pytorch_model.bin").read_bytes()).hexdigest()
    assert f"converted from sha256:{digest}" in done.stdout
    assert run(models / "nothing").returncode == 2
    empty = models.parent / "empty"
    empty.mkdir()
    nothing = run(empty, "--quick")
    assert nothing.returncode == 1
    assert nothing.stdout.count("missing") == 6
    assert list(empty.iterdir()) == []
