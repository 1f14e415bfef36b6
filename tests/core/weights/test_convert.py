import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from generated import generate, key_shapes
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file

from uav_core.errors import InputError
from uav_core.weights.checkpoints import load_checkpoint
from uav_core.weights.convert import PARTS, convert_release, main
from uav_core.weights.raft import raft_to_torchvision

ROOT = Path(__file__).parents[3]
TARGETS = {part.kind.value: part.target for part in PARTS}


def tiny(layout):
    """A released layout's every key, each tensor shrunk to sides of at most 2."""
    shapes = key_shapes(layout)
    small = {k: [min(n, 2) for n in s] for k, s in shapes.items() if not k.endswith("freqs")}
    return generate(layout, small)


def tiny_text_encoder():
    names = "encoder.layers.0.self_attn.q_proj.weight", "final_layer_norm.weight"
    state = generate("text", {f"text_model.{name}": [4, 4] for name in names})
    return state | {"text_model.embeddings.position_ids": torch.arange(77)[None]}


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    freqs = torch.linspace(1, 1e-4, 16)  # one tensor under many names, as in the release
    shared = {key: freqs for key in key_shapes("unet") if key.endswith("freqs")}
    release = tmp_path_factory.mktemp("release")
    contents = {
        "unet/unet_video.bin": tiny("unet") | shared,
        "vae/vae_3d.bin": tiny("vae_3d"),
        "vae/vae_video.bin": tiny("vae_video"),
        "propagator/raft-things.pth": tiny("raft_things"),
        "text_encoder/pytorch_model.bin": tiny_text_encoder(),
    }
    for name, tensors in contents.items():
        (release / name).parent.mkdir(exist_ok=True)
        torch.save(tensors, release / name)
    return release


@pytest.fixture
def release(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "release"))


def statuses(outcomes):
    return {outcome.part.kind.value: outcome.status for outcome in outcomes}


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_whole_release(release, tmp_path):
    out = tmp_path / "models"
    assert main([str(release), str(out)]) == 0
    assert files(out) == set(TARGETS.values())
    for kind, target in TARGETS.items():
        source = release / next(s for p in PARTS for s in p.sources
                                if p.target == target and (release / s).exists())  # fmt: skip
        with safe_open(out / target, framework="pt") as file:
            metadata = file.metadata()
        converted_kind = {"raft": "raft_torchvision"}.get(kind, kind)
        half = kind in ("unet", "text_encoder")
        assert metadata == {
            "format": "pt",
            "uav.kind": converted_kind,
            "uav.source": "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest(),
            "uav.dtype": "fp16" if half else "fp32",
            "uav.version": "1",
            "license": "S-Lab License 1.0 (non-commercial)",
        }
        given = load_checkpoint(source, kind).state_dict
        if kind == "raft":
            given = raft_to_torchvision(given)
        made = load_checkpoint(out / target, converted_kind).state_dict
        assert made.keys() == given.keys()
        for key, tensor in made.items():
            assert torch.equal(tensor, given[key].to(tensor.dtype)), key
            if not given[key].is_floating_point():
                assert tensor.dtype == given[key].dtype
            elif not key.endswith("freqs"):
                assert tensor.dtype == (torch.float16 if half else torch.float32), key


def test_tables_keep_fp32_and_position_ids_go(release, tmp_path):
    convert_release(release, tmp_path / "m", "fp16")
    unet = load_file(tmp_path / "m" / TARGETS["unet"])
    assert unet["temporal_rotary_emb.freqs"].dtype == torch.float32
    assert not any("position_ids" in k for k in load_file(tmp_path / "m" / TARGETS["text_encoder"]))


def test_second_run_skips_and_changes_are_followed(release, tmp_path):
    out = tmp_path / "m"
    convert_release(release, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert set(statuses(convert_release(release, out)).values()) == {"skipped"}
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}

    again = statuses(convert_release(release, out, "fp32"))
    assert {kind for kind, status in again.items() if status == "converted"} == {
        "unet",
        "text_encoder",
    }
    assert load_file(out / TARGETS["unet"])["conv_in.weight"].dtype == torch.float32

    torch.save(tiny("vae_3d") | {"new": torch.ones(1)}, release / "vae/vae_3d.bin")
    again = statuses(convert_release(release, out, "fp32"))
    assert [kind for kind, status in again.items() if status == "converted"] == ["vae_3d"]


def test_missing_and_wrong_parts_leave_the_others(release, tmp_path, caplog):
    (release / "vae/vae_video.bin").unlink()
    shutil.copy(release / "vae/vae_3d.bin", release / "unet/unet_video.bin")
    (release / "propagator/raft-things.pth").write_bytes(b"<html>quota exceeded</html>")
    assert main([str(release), str(tmp_path / "m")]) == 1
    assert files(tmp_path / "m") == {TARGETS["vae_3d"], TARGETS["text_encoder"]}
    end = caplog.text[caplog.text.index("2 of 5 parts") :]
    assert "missing vae_video: no vae/vae_video.bin" in end
    assert "failed unet: " in end and "expected an Upscale-A-Video temporal U-Net" in end
    assert "failed raft: " in end and "web page" in end


def test_folder_above_the_release_is_fine(release, tmp_path):
    deep = tmp_path / "repo" / "pretrained_models" / "upscale_a_video"
    shutil.copytree(release, deep)
    outcomes = convert_release(tmp_path / "repo", tmp_path / "m")
    assert set(statuses(outcomes).values()) == {"converted"}


def test_half_a_file_is_made_anew_and_leftovers_go(release, tmp_path):
    out = tmp_path / "m"
    convert_release(release, out)
    whole = (out / TARGETS["unet"]).read_bytes()
    (out / TARGETS["unet"]).write_bytes(whole[: len(whole) // 2])
    (out / "vae/.uav_vae_3d.safetensors.0badcafe.partial").write_bytes(b"half")
    assert statuses(convert_release(release, out))["unet"] == "converted"
    expected = load(whole)
    for key, tensor in load_file(out / TARGETS["unet"]).items():
        assert torch.equal(tensor, expected[key]), key
    assert files(out) == set(TARGETS.values())


def test_a_file_of_someone_else_is_not_overwritten(release, tmp_path):
    target = tmp_path / "m" / TARGETS["unet"]
    target.parent.mkdir(parents=True)
    save_file({"mine": torch.ones(3)}, target)
    outcome = next(o for o in convert_release(release, tmp_path / "m") if o.part.kind == "unet")
    assert outcome.status == "failed" and "move it away" in outcome.detail
    assert "mine" in load_file(target)
    folder = tmp_path / "n" / TARGETS["unet"]
    folder.mkdir(parents=True)
    outcome = next(o for o in convert_release(release, tmp_path / "n") if o.part.kind == "unet")
    assert outcome.status == "failed" and f"{folder} is a folder" in outcome.detail


def test_values_beyond_fp16(release, tmp_path):
    wide = tiny("unet") | {"conv_in.bias": torch.tensor([1e6, 1.0])}
    torch.save(wide, release / "unet/unet_video.bin")
    convert_release(release, tmp_path / "m")
    assert load_file(tmp_path / "m" / TARGETS["unet"])["conv_in.bias"].tolist() == [1e6, 1.0]
    torch.save(wide | {"conv_in.bias": torch.tensor([float("nan"), 1.0])},
               release / "unet/unet_video.bin")  # fmt: skip
    assert statuses(convert_release(release, tmp_path / "n"))["unet"] == "failed"


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are a POSIX thing")
def test_full_disk_is_one_line_and_leaves_nothing(release, tmp_path):
    torch.save(tiny("vae_3d") | {"big": torch.zeros(1 << 20)}, release / "vae/vae_3d.bin")
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from uav_core.convert import main; sys.exit(main(sys.argv[1:]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(release), str(tmp_path / "m")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    assert "failed vae_3d: " in run.stderr and "File too large" in run.stderr
    assert "Traceback" not in run.stderr
    assert files(tmp_path / "m") == set(TARGETS.values()) - {TARGETS["vae_3d"]}


def test_release_folder_must_exist(tmp_path, caplog):
    with pytest.raises(InputError, match="not a folder"):
        convert_release(tmp_path / "nowhere", tmp_path)
    assert main([str(tmp_path / "nowhere"), str(tmp_path)]) == 2
    assert "not a folder" in caplog.text


def test_help_names_arguments_and_license():
    run = subprocess.run(
        [sys.executable, "-m", "uav_core.convert", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0
    for word in ("RELEASE_FOLDER", "OUT_FOLDER", "--dtype {fp16,fp32}", "non-commercial"):
        assert word in run.stdout
