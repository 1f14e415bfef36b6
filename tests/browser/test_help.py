"""A user asks for a node's help, and reads it in the page's language."""

import pytest

NODE = "UpscaleAVideoConditioning"
SELECT = """type => {
    const app = window.app;
    const [node] = app.graph.nodes.filter(node => node.type === type);
    app.canvas.deselectAll();
    app.canvas.selectNode(node);
    app.canvas.setDirty(true, true);
}"""


def test_the_info_button_shows_the_help_with_its_picture(page):
    page.open_template("upscale_video")
    page.page.evaluate(SELECT, NODE)
    page.page.get_by_test_id("info-button").first.click()
    content = page.page.locator(".node-help-content")
    content.get_by_role("heading", name="Two common mistakes").wait_for()
    picture = content.locator("img").first
    picture.scroll_into_view_if_needed()
    page.page.wait_for_function("i => i.complete", arg=picture.element_handle())
    page.picture("help")
    assert picture.evaluate("image => image.naturalWidth") > 300
    # The page asks for one in its own language first, and takes ours when there is none.
    others = [text for text in page.complaints if f"docs/{NODE}/en.md" not in text]
    assert others == []


@pytest.mark.parametrize(("language", "title"), [("zh", "低分辨率条件"), ("en", "Low-Res")])
def test_names_are_in_the_language_of_the_page(page, put, language, title):
    """Also in a workflow that was saved in English."""
    put(NODE, NODE)
    page.page.evaluate("window.app.graph.nodes[1].title = 'mine'")
    saved = page.page.evaluate("JSON.parse(JSON.stringify(window.app.graph.serialize()))")
    page.page.evaluate(
        "code => window.app.extensionManager.setting.set('Comfy.Locale', code)", language
    )
    page.page.reload()
    page.page.wait_for_function("window.app?.extensionManager && window.app.graph")
    page.page.wait_for_function(
        "type => type in (window.LiteGraph?.registered_node_types ?? {})", arg=NODE
    )
    shown = page.page.evaluate("t => window.LiteGraph.registered_node_types[t].title", NODE)
    page.page.evaluate(
        """type => {
            const node = window.LiteGraph.createNode(type);
            node.pos = [200, 200];
            window.app.graph.add(node);
        }""",
        NODE,
    )
    page.page.wait_for_timeout(1500)  # for the page's own first picture to go
    page.picture(f"language-{language}")
    assert title in shown
    page.page.evaluate("saved => window.app.loadGraphData(saved)", saved)
    page.page.wait_for_function("window.app.graph.nodes.length === 2")
    again, mine = page.page.evaluate("window.app.graph.nodes.map(node => node.title)")
    assert title in again and "Upscale-A-Video" not in again
    assert mine == "mine"


def test_pictures_show_chinese(page):
    """The machine itself may have no letters for it."""
    page.page.set_content("<p>low resolution</p><div>低分辨率条件</div>")
    client = page.page.context.new_cdp_session(page.page)
    client.send("DOM.enable")
    client.send("CSS.enable")
    root = client.send("DOM.getDocument")["root"]["nodeId"]

    def family(tag: str) -> str:
        node = client.send("DOM.querySelector", {"nodeId": root, "selector": tag})
        (font,) = client.send("CSS.getPlatformFontsForNode", node)["fonts"]
        return font["familyName"]

    # Without such letters boxes of the usual font stand for them.
    assert family("div") != family("p") or "CJK" in family("div")
