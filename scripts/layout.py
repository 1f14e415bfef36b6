"""Where the development environment lies, and which ComfyUI versions are meant.

`environment.py` makes what is named here; the tests, the demo and the benchmark use it. The
environment variables are listed there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / ".dev"
DEFAULT_VERSION = "0.30.0"
INSTALLED = "installed"  # the name of the ComfyUI at COMFYUI_PATH
TESTED_VERSIONS = ("0.30.0", "0.3.75")


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def comfyui_path(version: str) -> Path:
    """The folder of a ComfyUI version, fetched or not."""
    if version != INSTALLED:
        return DEV / f"comfyui-{version}"
    if path := users_comfyui():
        return path
    raise SetupError("COMFYUI_PATH names no ComfyUI.")


def users_comfyui() -> Path | None:
    """The ComfyUI that COMFYUI_PATH names."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        return None
    path = Path(named).expanduser().resolve()
    if not (path / "main.py").is_file():
        raise SetupError(f"COMFYUI_PATH is {path}, which holds no main.py of a ComfyUI.")
    return path


def default_version() -> str:
    """The ComfyUI that the demo and the benchmark run on."""
    return INSTALLED if os.environ.get("COMFYUI_PATH") else DEFAULT_VERSION


def tested_versions() -> list[str]:
    """The ComfyUI versions that the server tests run on."""
    named = os.environ.get("UAV_COMFYUI_VERSIONS", "").replace(",", " ").split()
    return named or ([INSTALLED] if os.environ.get("COMFYUI_PATH") else list(TESTED_VERSIONS))


def environment_python() -> Path:
    """The Python that runs ComfyUI, the tests and the scripts."""
    return venv_python(DEV / ("overlay" if os.environ.get("COMFYUI_PATH") else "venv"))


def venv_python(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    windows = os.name == "nt"
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def find_chromium() -> str | None:
    """The browser for the browser tests, or None."""
    if named := os.environ.get("UAV_CHROMIUM"):
        return named
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)
