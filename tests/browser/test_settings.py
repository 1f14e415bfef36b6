"""A user chooses presets in the node Settings, and changes values by hand."""

from __future__ import annotations

import pytest

from uav_core.sampling import presets

NODE = "UpscaleAVideoSettings"
VALUES = """type => {
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    return Object.fromEntries(node.widgets.map(widget => [widget.name, widget.value]));
}"""
# Where a widget is on the page.
PLACE = """([type, name, at]) => {
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    const widget = node.widgets.find(widget => widget.name === name);
    const { scale, offset } = window.app.canvas.ds;
    const box = window.app.canvas.canvas.getBoundingClientRect();
    return [
        (node.pos[0] + (at ? node.size[0] - 24 : node.size[0] / 2) + offset[0]) * scale + box.left,
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


def undo(page, keys, expected):
    """Press keys and wait until the values are those expected, and the page is done with it."""
    page.page.keyboard.press(keys)
    for _ in range(100):
        if values(page) == expected:
            break
        page.page.wait_for_timeout(100)
    assert values(page) == expected
    # The values are in place before the page takes the next key.
    page.page.wait_for_timeout(1000)


def test_a_choice_fills_the_values_in(settings):
    assert values(settings) == named("included", "balanced", "balanced")
    choose(settings, "look", "creative")
    choose(settings, "speed", "best")
    settings.picture("settings-creative")
    assert values(settings) == named("included", "creative", "best")
    choose(settings, "weights", "authors'")
    assert values(settings) == named("authors'", "creative", "best")
    assert settings.complaints == []

    # What is queued carries them to the stages.
    prompt = settings.api_prompt()
    (key,) = (key for key, node in prompt.items() if node["class_type"] == NODE)
    assert prompt[key]["inputs"] == values(settings)
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
        ("UpscaleAVideoVAEDecode", "self_ensemble"): [key, 5],
    }


def test_a_value_changed_by_hand_is_custom(settings):
    shipped = named("included", "balanced", "balanced")
    # The arrow to the right of a number.
    settings.page.mouse.click(*settings.page.evaluate(PLACE, [NODE, "steps", "end"]))
    settings.page.wait_for_timeout(300)
    assert values(settings) == {**shipped, "steps": shipped["steps"] + 1, "speed": "custom"}
    choose(settings, "speed", "balanced")
    assert values(settings) == shipped
    changes = {
        "noise_level": (33, "look"),
        "guidance": (1.5, "look"),
        "propagation_strength": (0.25, "look"),
        "steps": (7, "speed"),
        "propagation_steps": ("last 1", "speed"),
        "self_ensemble": (True, "speed"),
    }
    for name, (value, owner) in changes.items():
        settings.set_widget(NODE, name, value)
        assert values(settings) == {**shipped, name: value, owner: "custom"}
        settings.set_widget(NODE, owner, "balanced")
        assert values(settings) == shipped
    settings.set_widget(NODE, "steps", shipped["steps"])
    assert values(settings)["speed"] == "balanced", "the same value is no change"


def test_other_weights_leave_what_is_custom_alone(settings):
    settings.set_widget(NODE, "guidance", 1.5)
    choose(settings, "weights", "authors'")
    kept = {
        **named("included", "custom", "custom"),
        **presets.table()["included"]["look"]["balanced"],
    }
    assert values(settings) == {**kept, **named("authors'", "custom", "balanced"), "guidance": 1.5}


def test_a_saved_workflow_opens_with_its_values(settings):
    """Also with values that its presets do not name."""
    saved = settings.page.evaluate(WORKFLOW)
    (node,) = (node for node in saved["nodes"] if node["type"] == NODE)
    node["widgets_values"] = ["included", "creative", "best", 33, 1.5, 7, "last 1", 0.25, True]
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
    undo(settings, "Control+z", named("included", "creative", "balanced"))
    undo(settings, "Control+z", before)
    undo(settings, "Control+y", named("included", "creative", "balanced"))


def test_it_works_in_the_new_look_of_nodes(settings):
    """With nodes drawn as elements of the page."""
    page = settings.page
    page.evaluate("window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    node = page.locator(".lg-node", has_text="propagation_strength").first
    node.get_by_text("balanced").first.click()
    page.get_by_role("option", name="creative").click()
    page.wait_for_timeout(500)
    settings.picture("settings-new-nodes")
    assert values(settings) == named("included", "creative", "balanced")


def test_a_look_chosen_on_a_subgraph_reaches_the_run(page, put, promote):
    put(NODE, "PreviewAny")
    page.page.evaluate(
        "() => { const [node, shown] = app.graph.nodes; node.connect(1, shown, 0); }"
    )
    promote(NODE, "look")
    page.page.evaluate(
        """() => {
            const { widgets } = app.graph.nodes.find(node => node.subgraph);
            const look = widgets.find(widget => widget.name === "look");
            look.value = "creative";
            look.callback?.("creative");
        }"""
    )
    (sent,) = (node for node in page.api_prompt().values() if node["class_type"] == NODE)
    assert sent["inputs"] == named("included", "creative", "balanced")
    guidance = presets.settings("included", "creative")["guidance"]
    assert page.run()["outputs"]["2"]["text"] == [str(guidance)]
    assert page.complaints == []
