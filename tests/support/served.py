"""Starts a ComfyUI server for the tests."""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.env.demo_weights import write_all
from scripts.env.layout import ROOT, SetupError, comfyui_path, dynamic_memory, environment_python
from scripts.server.comfy_server import PACK_FOLDER, ComfyServer

log = logging.getLogger(__name__)
PREVIEWS = ("--preview-method", "latent2rgb")
# Warnings about the pack, in Python's format.
OWN_WARNINGS = re.compile(
    rf"^.*(?:{PACK_FOLDER}|{re.escape(str(ROOT))})/(?:__init__|nodes|uav_core)"
    r".*(?:Deprecation|Future)Warning: .*$",
    re.MULTILINE,
)


@contextmanager
def served(version: str, base: Path, artifacts: Path) -> Iterator[ComfyServer]:
    """A running server of one version, with small generated weights; its log is kept.

    The test fails at the end if the pack used something deprecated.
    """
    try:
        comfyui = comfyui_path(version)
    except SetupError as error:
        pytest.fail(str(error))
    if not (comfyui / "main.py").is_file():
        pytest.fail(
            f"ComfyUI {version} is not at {comfyui}; "
            f"fetch it with: python3 -m scripts.env.environment --comfyui {version}"
        )
    write_all(base / "models")
    server = ComfyServer(comfyui, environment_python(), base, ROOT, PREVIEWS)
    if folder := dynamic_memory(comfyui):
        server.packs[folder.name] = folder
    server.environment["PYTHONWARNINGS"] = "default"
    try:
        with server:
            yield server
    finally:
        if server.log_file.is_file():
            shutil.copy(server.log_file, artifacts / f"{base.name}.log")
    if warnings := OWN_WARNINGS.findall(server.log_text()):
        pytest.fail("\n".join(warnings))
