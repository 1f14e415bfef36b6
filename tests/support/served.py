"""Starting a ComfyUI server for the tests."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from comfy_server import ComfyServer
from demo_weights import write_all
from layout import ROOT, SetupError, comfyui_path, environment_python

log = logging.getLogger(__name__)
PREVIEWS = ("--preview-method", "latent2rgb")


@contextmanager
def served(version: str, base: Path, artifacts: Path) -> Iterator[ComfyServer]:
    """A running server of one version, with small generated weights; its log is kept."""
    try:
        comfyui = comfyui_path(version)
    except SetupError as error:
        pytest.fail(str(error))
    if not (comfyui / "main.py").is_file():
        pytest.fail(
            f"ComfyUI {version} is not at {comfyui}; "
            f"fetch it with: python3 scripts/environment.py --comfyui {version}"
        )
    write_all(base / "models")
    server = ComfyServer(comfyui, environment_python(), base, ROOT, PREVIEWS)
    try:
        with server:
            yield server
    finally:
        if server.log_file.is_file():
            shutil.copy(server.log_file, artifacts / f"{base.name}.log")
