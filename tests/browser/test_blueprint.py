"""The whole upscale as one node: found among ComfyUI's blueprints, added, and run by a server."""

from __future__ import annotations

import json

import pytest
from clips import shrink_clip
from PIL import Image

from scripts.env.layout import ROOT
from scripts.workflows.blueprint import INPUTS, NAME

DECODE, DETAIL = "UpscaleAVideoVAEDecode", "UpscaleAVideoDetail"
FILE = ROOT / "subgraphs" / f"{NAME}.json"


@pytest.fixture
def added(page):
    """The page with the blueprint put on an empty canvas as a person does: searched by its name."""
    page.page.keyboard.press("Escape")
    page.template_browser.wait_for(state="hidden")
    page.page.evaluate("window.app.graph.clear()")
    # What a double click on the canvas does.
    command = "Workspace.SearchBox.Toggle"
    page.page.evaluate(f"window.app.extensionManager.command.execute('{command}')")
    page.page.wait_for_timeout(1000)  # until it listens to the keyboard
    page.page.keyboard.type(NAME)
    page.page.get_by_role("option").filter(has_text=NAME).first.wait_for()
    page.picture("blueprint-search")
    page.page.keyboard.press("Enter")
    page.page.mouse.click(700, 500)  # it hangs on the pointer until it is put down
    page.page.wait_for_function("window.app.graph.nodes.length === 1")
    page.page.wait_for_timeout(500)
    page.picture("blueprint-added")
    return page


def test_the_server_lists_it(page_server):
    listed = page_server.get("/global_subgraphs")
    (key,) = (key for key, entry in listed.items() if entry["name"] == NAME)
    assert listed[key]["source"] == "custom_node"
    assert json.loads(page_server.get(f"/global_subgraphs/{key}")["data"]) == json.loads(
        FILE.read_text()
    )


def test_it_is_one_node_with_the_inputs_that_matter(added):
    assert added.missing_nodes() == []
    inputs = added.page.evaluate("window.app.graph.nodes[0].inputs.map(input => input.name)")
    assert inputs == [name for name, _, _ in INPUTS]
    widgets = added.page.evaluate(
        "window.app.graph.nodes[0].widgets.map(widget => [widget.name, widget.value])"
    )
    assert widgets == [[name, value] for name, _, value in INPUTS if value is not None]
    assert added.complaints == []


def test_it_runs_between_load_and_save(added, page_server, sample_clip, tmp_path):
    """What the page makes of it, with a little clip and two steps."""
    clip = shrink_clip(sample_clip, tmp_path / "little.mp4", 2, (48, 32))
    prompt = added.api_prompt()
    nodes = {node["class_type"]: key for key, node in prompt.items()}
    for kind in ("UpscaleAVideoConditioning", "UpscaleAVideoPropagation", DECODE, DETAIL):
        prompt[nodes[kind]]["inputs"]["frames"] = ["parts", 0]
    prompt[nodes["UpscaleAVideoSegmentSampler"]]["inputs"]["steps"] = 2
    video = {"file": page_server.upload(clip)}
    prompt["video"] = {"class_type": "LoadVideo", "inputs": video}
    prompt["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": ["video", 0]}}
    saved = {"images": [nodes[DETAIL], 0], "filename_prefix": "blueprint"}
    prompt["save"] = {"class_type": "SaveImage", "inputs": saved}
    paths = page_server.output_paths(page_server.run(prompt), "save")
    assert len(paths) == 2
    with Image.open(paths[0]) as result:
        assert result.size == (192, 128)
