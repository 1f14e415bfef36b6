"""A real ComfyUI server of each tested version."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import served

from scripts.env.layout import tested_versions
from scripts.server.comfy_server import ComfyServer


@pytest.fixture(scope="session", params=tested_versions())
def comfy_server(request, tmp_path_factory, artifacts: Path) -> Iterator[ComfyServer]:
    """A server with this pack, one for all tests of a version."""
    version: str = request.param
    base = tmp_path_factory.mktemp(f"comfyui-{version}", numbered=False)
    with served(version, base, artifacts) as server:
        yield server
