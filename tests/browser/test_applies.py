"""The size inputs that a target does not use are not shown."""

NODE = "UpscaleAVideoLongVideoOptions"
SIZES = ("factor", "short_side", "width", "height", "aspect")
SHOWN = """([type, names]) => {
    const [node] = window.app.graph.nodes.filter(node => node.type === type);
    return node.widgets.filter(w => names.includes(w.name) && !w.hidden).map(w => w.name);
}"""
HEIGHT = """type => window.app.graph.nodes.find(node => node.type === type).size[1]"""


def shown(page):
    return page.page.evaluate(SHOWN, [NODE, SIZES])


def test_only_what_a_target_uses_is_shown(page):
    page.open_template("long_video")
    page.page.wait_for_timeout(500)
    assert shown(page) == ["factor"]
    low = page.page.evaluate(HEIGHT, NODE)
    page.set_widget(NODE, "output_size", "exact size")
    assert shown(page) == ["width", "height", "aspect"]
    assert page.page.evaluate(HEIGHT, NODE) > low
    page.picture("options-exact-size")

    # What is not shown keeps its value, is saved, and is shown again.
    saved = page.page.evaluate("JSON.parse(JSON.stringify(window.app.graph.serialize()))")
    page.set_widget(NODE, "output_size", "short side")
    assert shown(page) == ["short_side"]
    (sent,) = (n for n in page.api_prompt().values() if n["class_type"] == NODE)
    assert set(SIZES) <= sent["inputs"].keys()
    page.page.evaluate("saved => window.app.loadGraphData(saved)", saved)
    page.page.wait_for_timeout(500)
    assert shown(page) == ["width", "height", "aspect"]
    assert page.complaints == []


def test_they_are_not_shown_in_the_new_look_of_nodes(page):
    """With nodes drawn as elements of the page."""
    page.open_template("long_video")
    page.page.evaluate("window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', true)")
    node = page.page.locator(".lg-node", has_text="cut_detection").first
    node.get_by_text("factor").first.wait_for()
    page.picture("options-new-nodes")
    assert node.get_by_text("short_side").count() == 0


def test_a_target_that_comes_from_outside_hides_nothing(page, put, promote):
    put(NODE)
    assert shown(page) == ["factor"]
    promote(NODE, "output_size")
    page.page.evaluate(
        "window.app.canvas.setGraph(window.app.graph.nodes.find(node => node.subgraph).subgraph)"
    )
    inside = SHOWN.replace("app.graph", "app.canvas.graph")
    assert page.page.evaluate(inside, [NODE, SIZES]) == list(SIZES)
    page.page.evaluate(
        """() => {
            const [node] = window.app.canvas.graph.nodes;
            node.disconnectInput(node.inputs.findIndex(input => input.link != null));
        }"""
    )
    assert page.page.evaluate(inside, [NODE, SIZES]) == ["factor"]
    assert page.complaints == []
