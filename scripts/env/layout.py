"""Paths of the development environment, and the ComfyUI versions in it.

`environment.py` makes the environment and lists the environment variables; the tests, the demo and
the benchmark use it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEV = ROOT / ".dev"
INSTALLED = "installed"  # the name of the ComfyUI at COMFYUI_PATH
# The ComfyUI versions tested in each environment; the first one is its main version.
ENVIRONMENTS = {"venv": ("0.30.0", "0.3.75"), "newest": ("0.30.0",), "oldest": ("0.3.75",)}


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


def comfyui_path(version: str) -> Path:
    """The folder of a ComfyUI version, which may not be fetched yet."""
    if version != INSTALLED:
        return DEV / f"comfyui-{version}"
    if path := users_comfyui():
        return path
    raise SetupError("COMFYUI_PATH is not set: set it to the folder of your ComfyUI.")


def users_comfyui() -> Path | None:
    """The ComfyUI that COMFYUI_PATH names, or None. Raises SetupError if it is not one."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        return None
    path = Path(named).expanduser().resolve()
    if not (path / "main.py").is_file():
        raise SetupError(
            f"COMFYUI_PATH is {path}, which has no main.py: expected the folder of a ComfyUI."
        )
    return path


def default_version() -> str:
    """The ComfyUI that the demo and the benchmark run on."""
    return versions_here()[0]


def tested_versions() -> list[str]:
    """The ComfyUI versions that the server tests run on."""
    named = os.environ.get("UAV_COMFYUI_VERSIONS", "").replace(",", " ").split()
    return named or list(versions_here())


def versions_here() -> tuple[str, ...]:
    """The ComfyUI versions of the environment, the main one first."""
    return (INSTALLED,) if users_comfyui() else ENVIRONMENTS[environment_name()]


def environment_name() -> str:
    """Name of the environment's folder in `.dev`."""
    name = os.environ.get("UAV_ENVIRONMENT") or "venv"
    if name not in ENVIRONMENTS:
        raise SetupError(f"UAV_ENVIRONMENT is {name!r}: expected one of {', '.join(ENVIRONMENTS)}.")
    if not os.environ.get("COMFYUI_PATH"):
        return name
    if name != "venv":
        raise SetupError(
            f"UAV_ENVIRONMENT={name} and COMFYUI_PATH cannot be used together: unset one of them."
        )
    return "overlay"


def environment_python() -> Path:
    """The Python that runs ComfyUI, the tests and the scripts."""
    return venv_python(DEV / environment_name())


def venv_python(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    windows = os.name == "nt"
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def dynamic_memory(comfyui: Path) -> Path | None:
    """The custom node that enables dynamic memory on a CPU for the tests, or None.

    It is used with UAV_DYNAMIC_VRAM=1 and a ComfyUI that has dynamic memory.
    """
    has_it = (comfyui / "comfy" / "memory_management.py").is_file()
    wanted = os.environ.get("UAV_DYNAMIC_VRAM") == "1"
    return ROOT / "tests" / "support" / "dynamic_vram" if has_it and wanted else None


def find_chromium() -> str | None:
    """The browser for the browser tests, or None."""
    if named := os.environ.get("UAV_CHROMIUM"):
        return named
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)
