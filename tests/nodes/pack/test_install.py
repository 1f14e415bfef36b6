"""What an installation brings: the right files, nothing that moves a version, a quick start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import graph
import pytest
import torch
from generated import det
from PIL import Image

from scripts.env import layout
from scripts.env.layout import ROOT, comfyui_path, environment_python

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

SLOW_OR_OPTIONAL = ("kornia", "torchvision", "piq", "scenedetect", "cv2")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def run(*command: object) -> str:
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    try:
        return run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    except (OSError, AssertionError):
        pytest.skip("not a git repository, so there is nothing to publish from")


@pytest.fixture(scope="module")
def packed(tracked) -> list[str]:
    """What the registry's archive holds, by git's own reading of the patterns."""
    left_out = run("git", "ls-files", "-cio", "--exclude-from=.comfyignore").splitlines()
    return sorted(set(tracked) - set(left_out))


def copied(files: list[str], to: Path) -> Path:
    for name in files:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


# --- what is published ---------------------------------------------------------------------


def test_the_archive_holds_what_runs_and_no_more(packed):
    for name in (
        "__init__.py",
        "pyproject.toml",
        "requirements.txt",
        "LICENSE",
        "README.md",
        "assets/ATTRIBUTION.md",
        "weights/uav_small_unet.safetensors",
        "workflows/upscale_video.json",
        "nodes/__init__.py",
        "uav_core/cli/main.py",
    ):
        assert name in packed
    tops = {name.split("/")[0] for name in packed}
    assert tops.isdisjoint({"tests", "bench", "scripts", ".ci", "Makefile", ".dev", "output"})
    assert not any(name.startswith("uav_core/training/") for name in packed)
    size = sum((ROOT / name).stat().st_size for name in packed if (ROOT / name).is_file())
    assert size < 30e6


# The registry's scanner compares text, in comments and prose as well. Its rules are not public:
# these are the matches that it reported to publishers, and what its standards forbid.
REFUSED = {
    "an address for downloads": r"://raw\.githubusercontent\.com",
    "a command": r"\bsubprocess\b|\bos\.(?:system|popen|exec|spawn)",
    "an import by name": r"\bimport_module\b|__import__",
    "code from text": r"(?<![\w.])(?:eval|exec)\s*\(",
    "network": r"\b(?:aiohttp|urllib|requests|httpx|websockets?|ftplib)\b(?=\s*\.|\s*$|\s+import)"
    r"|\bhttp\.client\b|\bimport socket\b|\bsocket\.|\.create_connection\s*\("
    r"|\.(?:connect|bind|sendall|sendto|send|recv)\s*\(",
    "the environment": r"\bos\.(?:environ|getenv|putenv)\b",
}


def refused(text: str) -> list[str]:
    """What the scanner would report of a file's text."""
    return [
        f"{name}: {found.group()}"
        for name, rule in REFUSED.items()
        if (found := re.search(rule, text, re.MULTILINE))
    ]


def test_the_archive_holds_nothing_that_the_scanner_refuses(packed):
    scanned = [name for name in packed if name.endswith((".py", ".js", ".md"))]
    found = {name: refused((ROOT / name).read_text("utf-8")) for name in scanned}
    assert len(scanned) > 150
    assert {name: reports for name, reports in found.items() if reports} == {}


@pytest.mark.parametrize(
    "name", ["cli/remote/server.py", "cli/workers.py", "training/data/sources.py"]
)
def test_the_scanner_would_refuse_what_is_left_out(packed, name):
    assert f"uav_core/{name}" not in packed
    assert refused((ROOT / "uav_core" / name).read_text("utf-8"))


@pytest.mark.slow
def test_the_archive_s_command_says_what_it_lacks(packed, tmp_path):
    folder = copied([name for name in packed if name.startswith("uav_core/")], tmp_path)
    code = "import sys; from uav_core.cli.main import main\n"
    code += "print([main(['a', 'b', option]) for option in sys.argv[1:]])"
    done = subprocess.run(
        [environment_python(), "-c", code, "--server=http://127.0.0.1:1", "--workers=2"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[1, 1]", done.stderr
    for option in ("--server", "--workers"):
        assert f"{option} is not part of the package in ComfyUI's registry" in done.stderr


def test_icon_and_banner_are_of_the_registry_s_sizes():
    with Image.open(ROOT / "assets" / "icon.png") as icon:
        assert icon.width == icon.height <= 400
    with Image.open(ROOT / "assets" / "banner.jpg") as banner:
        assert banner.width * 9 == banner.height * 21


def test_the_registry_can_read_the_metadata():
    project, comfy = PYPROJECT["project"], PYPROJECT["tool"]["comfy"]
    assert re.fullmatch(r"[a-z](?:[a-z0-9]|[-_.](?![-_.])){0,98}", project["name"])
    assert "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert (ROOT / project["license"]["file"]).is_file()
    assert comfy["DisplayName"] and "PublisherId" in comfy
    # Dynamic ones are not resolved there: the archive would be published without any.
    assert project["dependencies"] == requirements(ROOT / "requirements.txt")
    oldest = min(tuple(map(int, v.split("."))) for v in ("0.30.0", "0.3.75"))
    assert comfy["requires-comfyui"] == ">=" + ".".join(map(str, oldest))


# --- versions ------------------------------------------------------------------------------


def requirements(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("version", layout.tested_versions())
def test_every_requirement_is_one_of_comfyui_and_asks_no_more(version):
    packaging = pytest.importorskip("packaging.requirements")
    listed = map(packaging.Requirement, requirements(comfyui_path(version) / "requirements.txt"))
    theirs = {requirement.name.lower(): requirement.specifier for requirement in listed}
    for line in requirements(ROOT / "requirements.txt"):
        ours = packaging.Requirement(line)
        assert ours.name in theirs
        floors = [s.version for s in theirs[ours.name] if s.operator in (">=", "==", "~=")]
        # Where ComfyUI takes any version, a floor of ours could move the one that is there.
        assert all(floor in ours.specifier for floor in floors)
        assert floors or not ours.specifier


def test_pip_would_install_nothing(tmp_path):
    python = environment_python()
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("there is no pip in the environment")
    report = tmp_path / "report.json"
    run(
        *(python, "-m", "pip", "install", "--dry-run", "--no-index", "--quiet"),
        *("--report", report, "--requirement", ROOT / "requirements.txt"),
    )
    assert json.loads(report.read_text())["install"] == []


# --- the start -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("version", layout.tested_versions())
def test_loads_from_any_folder_without_the_optional_packages(version, packed, tmp_path):
    names = "ComfyUI-Upscale-A-Video.v1", "my upscaler (copy)"
    folders = [copied(packed, tmp_path / "custom_nodes" / name) for name in names]
    output = run(
        *(environment_python(), ROOT / "scripts" / "server" / "load_pack.py"),
        *(comfyui_path(version), *folders, "--models", tmp_path / "models"),
        *("--without", *SLOW_OR_OPTIONAL),
    )
    for report in json.loads(output.splitlines()[-1]):
        assert report["loaded"]
        assert "UpscaleAVideoSegmentSampler" in report["nodes"]
        # All else that the pack needs to start, ComfyUI has imported by then.
        assert set(report["imported"]) <= {"comfy_api"}
        assert report["project"]["project"]["name"] == PYPROJECT["project"]["name"]
        assert report["project"]["project"]["supported_os"] == ["OS Independent"]
        assert "GPU :: NVIDIA CUDA" in report["project"]["project"]["supported_accelerators"]
    assert not (tmp_path / "models").exists()


# --- without the optional packages ---------------------------------------------------------


@pytest.fixture
def bare(monkeypatch):
    """An environment without them, for modules that are not imported yet."""
    for name in (
        "piq",
        "scenedetect",
        "scenedetect.detectors",
        "torchvision.models.optical_flow",
    ):
        monkeypatch.setitem(sys.modules, name, None)


def test_raft_without_torchvision_names_it(pack, bare, tmp_path, monkeypatch):
    from generated import generate, key_shapes

    raft = generate(
        "raft.", {k: [min(n, 2) for n in s] for k, s in key_shapes("raft_things").items()}
    )
    torch.save(raft, tmp_path / "raft-things.pth")
    monkeypatch.setattr(
        pack.nodes.base.files, "resolve", lambda *_: str(tmp_path / "raft-things.pth")
    )
    load = pack.nodes.loaders.load
    with pytest.raises(pack.uav_core.UpscaleAVideoError, match=r"torchvision.*built-in"):
        load.LoadFlowModel.execute("raft-things.pth")
    assert load.LoadFlowModel.execute(load.BUILTIN_FLOW).result[0].model


def test_compare_without_piq_measures_the_rest(pack, bare):
    images = graph.frames(2, 32, 32)
    result = pack.nodes.look.compare.Compare.execute(
        images, images.flip(1), "a, b", True, 0.5, reference=images
    ).result
    assert "PSNR" in result[2] and "pip install --no-deps piq" in result[2]


def test_cuts_without_pyscenedetect(pack, bare):
    scenes = pack.uav_core.video.scenes
    assert scenes.chosen_method(scenes.SceneParams("auto")) == "built-in"
    with pytest.raises(pack.uav_core.UpscaleAVideoError, match="Install scenedetect"):
        scenes.chosen_method(scenes.SceneParams("pyscenedetect"))


def test_propagation_needs_no_kornia(pack, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.geometry.transform", None)
    flow = torch.zeros(1, 2, 2, 8, 8)
    x = det("x", (1, 4, 3, 8, 8))
    assert pack.uav_core.propagate(x, flow, flow).shape == x.shape
