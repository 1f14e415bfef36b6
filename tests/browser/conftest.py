"""ComfyUI's own page in a real browser."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from clips import shrink_clip
from served import served

from scripts.env.layout import default_version, find_chromium
from scripts.server.browser import browser
from scripts.server.comfy_server import ComfyServer

log = logging.getLogger(__name__)

PUT = """types => {
    window.app.graph.clear();
    types.forEach((type, i) => {
        const node = window.LiteGraph.createNode(type);
        node.pos = [100 + 450 * i, 200];
        window.app.graph.add(node);
    });
}"""
SELECT = """types => {
    const { graph, canvas } = window.app;
    canvas.deselectAll();
    canvas.selectItems(graph.nodes.filter(node => types.includes(node.type)));
}"""
OPEN = """() => {
    const node = window.app.graph.nodes.find(node => node.subgraph);
    window.app.canvas.openSubgraph(node.subgraph, node);
}"""
# Where a widget of the open graph is on the page.
PLACE = """([type, name]) => {
    const { graph, canvas, ds } = window.app.canvas;
    const node = graph.nodes.find(node => node.type === type);
    const widget = node.widgets.find(widget => widget.name === name);
    const box = canvas.getBoundingClientRect();
    return [
        (node.pos[0] + node.size[0] / 2 + ds.offset[0]) * ds.scale + box.left,
        (node.pos[1] + widget.y + 10 + ds.offset[1]) * ds.scale + box.top,
    ];
}"""


def unavailable(reason: str) -> None:
    """Skip, or fail where a browser is required."""
    if os.environ.get("UAV_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(f"BROWSER TESTS LEFT OUT: {reason}")


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Where the browser is, if all that drives it is there."""
    if importlib.util.find_spec("playwright") is None:
        unavailable(
            "playwright is missing; python3 -m scripts.env.environment --browser installs it"
        )
    path = find_chromium()
    if not path:
        unavailable("no chromium found; install one or name it in UAV_CHROMIUM")
    return str(path)


# Not for the whole session: while it is open an event loop runs in this thread, in which the tests
# of other folders could not run one of their own.
@pytest.fixture(scope="module")
def chromium(browser_path):
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, browser(playwright) as launched:
        yield launched


@pytest.fixture(scope="session")
def page_server(browser_path, tmp_path_factory, artifacts, sample_clip) -> Iterator[ComfyServer]:
    """The server whose page is driven: the newest tested ComfyUI, with its own frontend.

    The files that the templates name lie in its input folder, laid there by the pack. So does a
    smaller clip, for runs. Models are the included ones only, as a new user has them.
    """
    base = tmp_path_factory.mktemp("comfyui-page", numbered=False)
    with served(default_version(), base, artifacts) as server:
        server.upload(shrink_clip(sample_clip, base / "small.mp4", 10, (48, 32)))
        yield server


@pytest.fixture
def page(chromium, page_server: ComfyServer, artifacts: Path, request):
    """The page as a new user meets it, with what it complains about; pictured at the end."""
    from comfy_page import ComfyPage

    context = chromium.new_context(viewport={"width": 1600, "height": 1000})
    try:
        comfy_page = ComfyPage(context.new_page(), page_server, artifacts)
        comfy_page.open()
        yield comfy_page
        comfy_page.picture(f"{request.node.name}-end")
    finally:
        context.close()


@pytest.fixture
def put(page):
    """A function that replaces the workflow by nodes of these types, from left to right."""

    def replaced(*types: str) -> None:
        page.page.keyboard.press("Escape")
        page.template_browser.wait_for(state="hidden")
        page.page.evaluate(PUT, types)
        page.page.wait_for_timeout(300)

    return replaced


@pytest.fixture
def enclose(page):
    """A function that puts nodes into a subgraph and shows its inside."""

    def enclosed(*types: str) -> None:
        page.page.evaluate(SELECT, types)
        command = "Comfy.Graph.ConvertToSubgraph"
        page.page.evaluate(f"window.app.extensionManager.command.execute('{command}')")
        page.page.wait_for_function("window.app.graph.nodes.some(node => node.subgraph)")
        page.page.evaluate(OPEN)
        page.page.wait_for_timeout(1000)  # for the view to come to rest

    return enclosed


@pytest.fixture
def promote(page, enclose):
    """A function that puts a node into a subgraph, whose node gets one of its widgets."""

    def promoted(node_type: str, widget: str) -> None:
        enclose(node_type)
        page.page.mouse.click(*page.page.evaluate(PLACE, [node_type, widget]), button="right")
        page.page.get_by_text(f"Promote Widget: {widget}").click()
        page.page.wait_for_timeout(500)
        page.page.evaluate("window.app.canvas.setGraph(window.app.graph)")
        page.page.wait_for_timeout(500)

    return promoted
