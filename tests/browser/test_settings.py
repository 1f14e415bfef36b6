"""A user chooses presets in the node Settings, and changes values by hand."""

from __future__ import annotations

import json

import pytest
from layout import ROOT

from uav_core import quality_presets as presets

NODE = "UpscaleAVideoSettings"
VALUES = """type => {
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    return Object.fromEntries(node.widgets.map(widget => [widget.name, widget.value]));
}"""
# Where a widget is on the page.
PLACE = """([type, name]) => {
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    const widget = node.widgets.find(widget => widget.name === name);
    const { scale, offset } = window.app.canvas.ds;
    const box = window.app.canvas.canvas.getBoundingClientRect();
    return [
        (node.pos[0] + node.size[0] / 2 + offset[0]) * scale + box.left,
        (node.pos[1] + widget.y + 10 + offset[1]) * scale + box.top,
    ];
}"""
WORKFLOW = "JSON.parse(JSON.stringify(window.app.graph.serialize()))"


@pytest.fixture
def settings(page):
    """The shipped workflow, opened."""
    page.open_template("upscale_video")
    page.page.wait_for_timeout(1000)  # for the view to come to rest
    return page


def values(page):
    return page.page.evaluate(VALUES, NODE)


def named(weights, look, speed):
    chosen = {"weights": weights, "look": look, "speed": speed}
    return {**chosen, **presets.settings(weights, look, speed)}


def choose(page, widget, option):
    """With the mouse, in the widget's menu."""
    page.page.mouse.click(*page.page.evaluate(PLACE, [NODE, widget]))
    entry = page.page.locator(".litecontextmenu .litemenu-entry").get_by_text(option, exact=True)
    entry.click()
    page.page.wait_for_timeout(300)


def test_it_opens_as_shipped(settings):
    assert values(settings) == named("included", "balanced", "balanced")


def test_a_choice_fills_the_values_in(settings):
    choose(settings, "look", "creative")
    choose(settings, "speed", "best")
    settings.picture("settings-creative")
    assert values(settings) == named("included", "creative", "best")
    choose(settings, "weights", "authors'")
    assert values(settings) == named("authors'", "creative", "best")
    assert settings.complaints == []


def test_what_is_chosen_is_what_runs(settings):
    choose(settings, "weights", "authors'")
    prompt = settings.api_prompt()
    (key,) = (key for key, node in prompt.items() if node["class_type"] == NODE)
    assert prompt[key]["inputs"] == named("authors'", "balanced", "balanced")
    taken = {
        (node["class_type"], name): value
        for node in prompt.values()
        for name, value in node["inputs"].items()
        if isinstance(value, list) and value[0] == key
    }
    assert taken == {
        ("UpscaleAVideoConditioning", "noise_level"): [key, 0],
        ("UpscaleAVideoSegmentSampler", "guidance"): [key, 1],
        ("UpscaleAVideoSegmentSampler", "steps"): [key, 2],
        ("UpscaleAVideoPropagation", "steps"): [key, 3],
        ("UpscaleAVideoPropagation", "strength"): [key, 4],
    }


@pytest.mark.parametrize(
    ("name", "value", "owner"),
    [
        ("noise_level", 33, "look"),
        ("guidance", 1.5, "look"),
        ("propagation_strength", 0.25, "look"),
        ("steps", 7, "speed"),
        ("propagation_steps", "last 1", "speed"),
    ],
)
def test_a_value_changed_by_hand_is_custom(settings, name, value, owner):
    expected = {**named("included", "balanced", "balanced"), name: value, owner: "custom"}
    settings.set_widget(NODE, name, value)
    assert values(settings) == expected
    # Other weights leave what is one's own alone.
    choose(settings, "weights", "authors'")
    kept = expected if owner == "look" else named("authors'", "balanced", "balanced")
    other = named("authors'", "balanced", "balanced") if owner == "look" else expected
    changed = values(settings)
    for setting in ("noise_level", "guidance", "propagation_strength"):
        assert changed[setting] == kept[setting]
    for setting in ("steps", "propagation_steps"):
        assert changed[setting] == other[setting]


def test_the_same_value_typed_again_is_no_change(settings):
    settings.set_widget(NODE, "steps", values(settings)["steps"])
    assert values(settings)["speed"] == "balanced"


def test_a_saved_workflow_opens_with_its_values(settings):
    """Also with values that its presets do not name."""
    saved = settings.page.evaluate(WORKFLOW)
    (node,) = (node for node in saved["nodes"] if node["type"] == NODE)
    node["widgets_values"] = ["included", "creative", "best", 33, 1.5, 7, "last 1", 0.25]
    settings.page.evaluate("saved => window.app.loadGraphData(saved)", saved)
    settings.page.wait_for_timeout(500)
    assert list(values(settings).values()) == node["widgets_values"]
    again = settings.page.evaluate(WORKFLOW)
    settings.page.reload()
    settings.page.wait_for_function("window.app?.extensionManager && window.app.graph")
    settings.page.evaluate("saved => window.app.loadGraphData(saved)", again)
    assert list(values(settings).values()) == node["widgets_values"]
    assert settings.complaints == []


def test_one_undo_takes_a_choice_back(settings):
    before = values(settings)
    choose(settings, "look", "creative")
    choose(settings, "speed", "draft")
    settings.page.keyboard.press("Control+z")
    settings.page.wait_for_timeout(500)
    assert values(settings) == named("included", "creative", "balanced")
    settings.page.keyboard.press("Control+z")
    settings.page.wait_for_timeout(500)
    assert values(settings) == before
    settings.page.keyboard.press("Control+y")
    settings.page.wait_for_timeout(500)
    assert values(settings) == named("included", "creative", "balanced")


def test_the_presets_are_written_once(settings):
    """The page has them from the node's definition."""
    assert "creative" not in (ROOT / "web" / "js" / "settings.js").read_text()
    given = settings.server.object_info()[NODE]["input"]["required"]["weights"][1]["uav_presets"]
    assert given["table"] == json.loads(json.dumps(presets.table()))
