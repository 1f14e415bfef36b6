"""The shipped workflows as they lie on the page."""

import json
from itertools import combinations

import pytest

from scripts.env.layout import ROOT

WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
TITLE = 30
SETTINGS = "UpscaleAVideoSettings"
# One input of every stage's settings. What a workflow lacks is left out.
TAKEN = {
    ("UpscaleAVideoConditioning", "noise_level"),
    ("UpscaleAVideoSegmentSampler", "steps"),
    ("UpscaleAVideoSegmentSampler", "guidance"),
    ("UpscaleAVideoPropagation", "steps"),
    ("UpscaleAVideoPropagation", "strength"),
    ("UpscaleAVideoLongVideo", "noise_level"),
    ("UpscaleAVideoLongVideo", "steps"),
    ("UpscaleAVideoLongVideo", "guidance"),
    ("UpscaleAVideoLongVideo", "propagation_steps"),
    ("UpscaleAVideoLongVideoOptions", "propagation_strength"),
}


def box(node):
    """Left, top, right, bottom, with the title; of a folded node the title alone."""
    (x, y), (width, height) = node["pos"], node["size"]
    height = 0 if node["flags"].get("collapsed") else height
    return x, y - TITLE, x + width, y + height


def apart(a, b):
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return json.loads(request.param.read_text())


def test_nothing_lies_on_anything_else(workflow):
    for a, b in combinations(workflow["nodes"], 2):
        assert apart(box(a), box(b)), (a["type"], b["type"])


def test_every_node_lies_in_one_group_and_notes_in_none(workflow):
    groups = [(g["title"], g["bounding"]) for g in workflow["groups"]]
    for (one, a), (other, b) in combinations(groups, 2):
        boxes = [(x, y, x + width, y + height) for x, y, width, height in (a, b)]
        assert apart(*boxes), (one, other)
    for node in workflow["nodes"]:
        left, top, right, bottom = box(node)
        around = [
            title
            for title, (x, y, width, height) in groups
            if x <= left and y <= top and right <= x + width and bottom <= y + height
        ]
        touched = [
            title
            for title, (x, y, width, height) in groups
            if not apart(box(node), (x, y, x + width, y + height))
        ]
        expected = 0 if node["type"] == "MarkdownNote" else 1
        assert len(around) == len(touched) == expected, (node["type"], around, touched)


def test_the_stages_take_their_settings_from_the_one_node(workflow):
    nodes = {node["id"]: node for node in workflow["nodes"]}
    sources = {link[0]: nodes[link[1]] for link in workflow["links"]}
    kinds = [node["type"] for node in nodes.values()]
    if SETTINGS not in kinds:
        # One compares settings, one has its own.
        assert kinds.count("UpscaleAVideoCompare") == 2 or "UpscaleAVideoUpscale" in kinds
        return
    for node in nodes.values():
        linked = {i["name"]: sources[i["link"]] for i in node["inputs"] if i["link"] is not None}
        for kind, name in TAKEN:
            if node["type"] == kind:
                assert linked[name]["type"] == SETTINGS
                assert box(linked[name])[2] <= box(node)[0], "to the left of what takes them"
