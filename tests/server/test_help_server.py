"""Help pages and translations, where ComfyUI's page asks for them."""

from __future__ import annotations

import urllib.parse
import urllib.request

import pytest

from scripts.env.layout import ROOT
from scripts.server.comfy_server import PACK_FOLDER

DOCS = ROOT / "web" / "docs"
PREFIX = "UpscaleAVideo"


def fetch(server, path: str) -> tuple[int, str, bytes]:
    """Status, kind and content of a file."""
    url = server.url + urllib.parse.quote(path)
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.status, answer.headers.get_content_type(), answer.read()


def help_of(node: dict) -> str:
    """The address that the page makes of a node's `python_module` and name."""
    _, pack = node["python_module"].split(".")[:2]
    return f"/extensions/{pack}/docs/{node['name']}.md"


def test_the_help_of_every_node_is_served(comfy_server):
    ours = [n for name, n in comfy_server.object_info().items() if name.startswith(PREFIX)]
    assert len(ours) == len(list(DOCS.glob("*.md")))
    for node in ours:
        status, kind, content = fetch(comfy_server, help_of(node))
        # The page takes HTML for "there is none".
        assert status == 200 and kind != "text/html"
        assert content == (DOCS / f"{node['name']}.md").read_bytes()


def test_the_help_in_another_language_is_served(comfy_server):
    for page in DOCS.glob("*/*.md"):
        # The page makes this address of the node's name and its own language.
        address = f"/extensions/{PACK_FOLDER}/docs/{page.parent.name}/{page.name}"
        status, kind, content = fetch(comfy_server, address)
        assert status == 200 and kind != "text/html"
        assert content == page.read_bytes()


def test_pictures_are_served(comfy_server):
    pictures = [path for path in DOCS.iterdir() if path.is_file() and path.suffix != ".md"]
    assert pictures
    for path in pictures:
        _, kind, content = fetch(comfy_server, f"/extensions/{PACK_FOLDER}/docs/{path.name}")
        assert kind.startswith("image/")
        assert content == path.read_bytes()


def test_translations_are_served(comfy_server):
    served = comfy_server.get("/i18n")
    for node in comfy_server.object_info():
        if node.startswith(PREFIX):
            english, chinese = (served[code]["nodeDefs"][node] for code in ("en", "zh"))
            assert "Upscale-A-Video" in english["display_name"]
            assert "Upscale-A-Video" in chinese["display_name"]
            assert english["description"] != chinese["description"]
    assert served["zh"]["nodeCategories"]["long video"] == "长视频"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_input_that_the_server_knows_has_a_name(comfy_server, language):
    known = comfy_server.get("/i18n")[language]["nodeDefs"]
    for name, node in comfy_server.object_info().items():
        if name.startswith(PREFIX):
            inputs = {k for kind in ("required", "optional") for k in node["input"].get(kind, {})}
            assert inputs <= set(known[name]["inputs"])
            assert set(known[name]["outputs"]) == {str(i) for i in range(len(node["output"]))}
