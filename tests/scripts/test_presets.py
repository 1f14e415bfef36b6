"""The shipped workflow and the names and numbers it is said to have."""

import json

import numpy as np
import pytest
from PIL import Image

from scripts import demo
from scripts.env.demo_weights import FILES
from scripts.env.layout import ROOT
from scripts.pictures.before_after import before_after, busiest
from scripts.workflows.presets import AUTHORS, INCLUDED, SETTINGS, with_preset
from uav_core.weights import included
from uav_core.weights.convert import PARTS

WORKFLOW = ROOT / "workflows" / "upscale_video.json"
TWIN = ROOT / "tests" / "server" / "api" / "upscale_video.json"


@pytest.fixture
def twin():
    return json.loads(TWIN.read_text())


def names(preset):
    values = (item for inputs in preset.values() for item in inputs.items())
    return {value for key, value in values if key.endswith("_name")}


def test_the_shipped_workflow_has_the_included_preset(twin):
    assert with_preset(twin, INCLUDED) == twin
    assert set(INCLUDED) == set(AUTHORS) <= {node["class_type"] for node in twin.values()}


def test_the_authors_names_are_those_that_conversion_and_tests_write():
    written = {part.target.split("/")[1] for part in PARTS}
    assert names(AUTHORS) <= written
    assert names(AUTHORS) == {file.split("/")[1] for file in FILES.values()}


def test_the_included_names_are_those_of_the_files():
    entries = {f"{n} (included)" for n in (included.UNET, included.VAE_VIDEO, included.TEXT)}
    assert names(INCLUDED) == entries | {"built-in (no weights)"}


def test_the_note_says_how_to_switch_to_the_authors_weights():
    nodes = json.loads(WORKFLOW.read_text())["nodes"]
    notes = "".join(n["widgets_values"][0] for n in nodes if n["type"] == "MarkdownNote")
    for text in (*names(AUTHORS), "guidance** 6", "steps** 30", "noise_level** 120"):
        assert text in notes, text


def test_a_preset_leaves_links_alone(twin):
    """The stages take their numbers from the node Settings, whichever weights it is set to."""
    links = {
        (key, name): value
        for key, node in twin.items()
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }
    changed = with_preset(twin, AUTHORS)
    assert {(key, name): changed[key]["inputs"][name] for key, name in links} == links
    (settings,) = (n["inputs"] for n in changed.values() if n["class_type"] == SETTINGS)
    assert settings == AUTHORS[SETTINGS]


def test_the_demo_sets_steps_that_are_used(twin):
    prompt = demo.load_prompt("clip.mp4", authors=False, steps=2)
    assert demo.steps_of(prompt) == 2
    inputs = prompt[demo.find(prompt, SETTINGS)]["inputs"]
    assert inputs["propagation_steps"] == "last 2" and inputs["speed"] == "custom"
    (sampler,) = (n["inputs"] for n in prompt.values() if "Segment" in n["class_type"])
    assert sampler["steps"] == [demo.find(prompt, SETTINGS), 2]


def test_a_preset_leaves_the_rest_alone(twin):
    changed = with_preset(twin, AUTHORS)
    assert with_preset(changed, INCLUDED) == twin
    assert changed != twin


def test_details_are_taken_where_there_is_most_to_see():
    pixels = np.zeros((90, 120), dtype=np.uint8)
    pixels[50:70, 80:100:2] = 255
    pixels[10:20, 10:20:4] = 255
    picture = Image.fromarray(pixels)
    first, second = busiest(picture, (30, 30), 2)
    assert first[0] <= 80 and first[2] >= 99 and first[1] <= 50 and first[3] >= 70
    assert second[0] <= 10 and second[2] >= 19 and second[1] <= 10 and second[3] >= 20
    assert busiest(picture, (200, 30), 2) == []
    sheet = before_after({"a": picture.convert("RGB"), "b": picture.convert("RGB")}, "a")
    assert sheet.width == 2 * 384 + 3 * 8
