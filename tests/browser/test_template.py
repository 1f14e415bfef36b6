"""A new user opens the shipped workflow from the template browser and runs it."""

import json

import pytest
from clips import read_clip

from scripts.env.layout import ROOT

TEMPLATE = "upscale_video"
TEMPLATES = tuple(sorted(path.stem for path in (ROOT / "workflows").glob("*.json")))
# On a laptop's screen; ComfyUI leaves out texts that would be smaller than this.
LAPTOP = {"width": 1366, "height": 768}
FONT, READABLE = 14, 8
# Sent by the page; the nodes do without them.
PAGE_ONLY = {"video-preview", "codec.encoding"}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_opens_complete(page, name):
    """And the page makes its API twin of it."""
    page.page.set_viewport_size(LAPTOP)
    assert name in page.list_templates()
    page.picture("template-browser")
    page.open_template(name)
    page.page.wait_for_timeout(1000)  # for the view to come to rest
    page.picture(f"{name}-opened")
    assert page.missing_nodes() == []
    assert page.node_types()
    titles = page.page.evaluate("window.app.graph.nodes.map(node => node.title)")
    assert not [title for title in titles if "Upscale-A-Video)" in title], "the badge says it"
    assert page.page.evaluate("window.app.canvas.ds.scale") * FONT >= READABLE
    twin = json.loads((ROOT / "tests" / "server" / "api" / f"{name}.json").read_text())
    made = page.api_prompt()
    assert set(made) == set(twin)
    for key, node in made.items():
        inputs = {k: v for k, v in node["inputs"].items() if k not in PAGE_ONLY}
        assert (node["class_type"], inputs) == (twin[key]["class_type"], twin[key]["inputs"])
    assert page.complaints == []


def test_the_template_runs_from_the_page(page, page_server):
    page.open_template(TEMPLATE)
    page.set_widget("LoadVideo", "file", "small.mp4")
    page.set_widget("UpscaleAVideoSettings", "steps", 2)
    page.set_widget("UpscaleAVideoSettings", "propagation_steps", "1")
    entry = page.run()
    page.picture("template-run")
    source = read_clip(page_server.base / "input" / "small.mp4")
    result = read_clip(page_server.output_path(entry))
    assert result.size == (source.size[0] * 4, source.size[1] * 4)
    assert (result.frames, result.fps) == (source.frames, source.fps)
    assert page.complaints == []


def test_every_template_has_a_picture(page):
    page.list_templates()
    for name in TEMPLATES:
        picture = f"{name}.jpg"
        assert (ROOT / "workflows" / picture).is_file()
        assert not [text for text in page.complaints if picture in text]
