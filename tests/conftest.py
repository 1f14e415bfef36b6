"""What every ring of the tests shares."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from torchvision_shim.prestartup_script import install as complete_torchvision

from scripts.env.layout import ROOT, environment_name

complete_torchvision()

RINGS = {"comfy_server": "server", "page": "browser"}
PACKAGES = ("torch", "av", "numpy", "kornia", "transformers", "safetensors", "pillow", "einops")


def pytest_report_header():
    """What the tests run on."""
    return f"environment {environment_name()}: Python {platform.python_version()}, " + ", ".join(
        f"{name} {release(name)}" for name in (*PACKAGES, "comfyui-frontend-package")
    )


def release(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def pytest_collection_modifyitems(items):
    """Mark the tests that need a server or a browser by the fixture they ask for."""
    for item in items:
        for fixture, mark in RINGS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


@pytest.fixture(scope="session")
def sample_clip() -> Path:
    """Two seconds of 160x96 video at 12.5 fps, 25 frames, with sound."""
    return ROOT / "assets" / "sample.mp4"


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where logs, pictures and videos stay after a run."""
    folder = ROOT / "output" / "tests" / environment_name()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
