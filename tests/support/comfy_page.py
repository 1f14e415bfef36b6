"""User actions on ComfyUI's page, and the errors of the page during them."""

import time
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, Request, Response

from scripts.server.comfy_server import PACK_FOLDER, ComfyServer

# Requests that fail at every start of ComfyUI's page, also without custom nodes.
EVERYDAY = (
    "/user.css",
    "/api/userdata",  # a new user has no saved workflows yet
    "ComfyApp graph accessed before initialization",
)
ABANDONED = "net::ERR_ABORTED"  # a request that the page cancelled, or that ended with it


class ComfyPage:
    """ComfyUI's page with this pack installed."""

    def __init__(self, page: Page, server: ComfyServer, artifacts: Path):
        self.page, self.server, self.artifacts = page, server, artifacts
        self._complaints: list[str] = []
        page.set_default_timeout(20_000)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self._complain(f"uncaught: {error}"))
        page.on("requestfailed", self._on_failed_request)
        page.on("response", self._on_response)
        page.on("request", self._on_request)

    # ------------------------------------------------------------ complaints

    @property
    def complaints(self) -> list[str]:
        """Console errors, uncaught exceptions, failed and outside requests so far."""
        return list(self._complaints)

    def _complain(self, text: str) -> None:
        if not any(known in text for known in EVERYDAY):
            self._complaints.append(text)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._complain(f"console: {message.text} ({message.location.get('url', '')})")

    def _on_failed_request(self, request: Request) -> None:
        if ABANDONED not in (request.failure or ""):
            self._complain(f"request failed: {request.url} {request.failure}")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400:
            self._complain(f"answer {response.status}: {response.url}")

    def _on_request(self, request: Request) -> None:
        if request.url.startswith("http") and not request.url.startswith(self.server.url):
            self._complain(f"request to outside: {request.url}")

    # ------------------------------------------------------------ what a person does

    def open(self) -> None:
        """Open the page as a new user, so that it shows the template browser."""
        settings = self.server.base / "user" / "default" / "comfy.settings.json"
        settings.unlink(missing_ok=True)
        self.page.goto(self.server.url)
        self.page.wait_for_function("window.app?.extensionManager && window.app.graph")
        self.template_browser.wait_for(timeout=60_000)

    @property
    def template_browser(self) -> Locator:
        """The dialog that lists the templates."""
        return self.page.get_by_role("dialog").filter(has=self.page.get_by_text("Templates"))

    def list_templates(self, pack: str = PACK_FOLDER) -> list[str]:
        """Select a pack in the template browser. Returns the names of its templates."""
        offered = self.server.get("/api/workflow_templates")
        assert pack in offered, f"the server offers templates of {sorted(offered)} only"
        dialog = self.template_browser
        if not dialog.is_visible():
            self.page.get_by_role("button", name="Templates").first.click()
            dialog.wait_for()
        dialog.get_by_role("button").filter(has_text=pack).click()
        for name in offered[pack]:
            dialog.get_by_test_id(f"template-workflow-{name}").wait_for()
        cards = dialog.locator("[data-testid^=template-workflow-]")
        names = cards.evaluate_all("cards => cards.map(card => card.dataset.testid)")
        return [name.removeprefix("template-workflow-") for name in names]

    def open_template(self, name: str, pack: str = PACK_FOLDER) -> None:
        """Open a pack's template from the template browser."""
        self.list_templates(pack)
        dialog = self.template_browser
        dialog.get_by_test_id(f"template-workflow-{name}").click()
        dialog.wait_for(state="hidden")
        self.page.wait_for_function("window.app.graph.nodes.length > 0")

    def missing_nodes(self) -> list[str]:
        """Node types on the canvas and in its subgraphs that no installed pack provides."""
        return self.page.evaluate(
            """() => {
                const missing = [];
                const visit = graph => graph.nodes.forEach(node => {
                    if (node.subgraph) visit(node.subgraph);
                    else if (!(node.type in LiteGraph.registered_node_types))
                        missing.push(node.type);
                });
                visit(window.app.graph);
                return missing;
            }"""
        )

    def node_types(self) -> list[str]:
        """The types of the nodes on the canvas."""
        return self.page.evaluate("window.app.graph.nodes.map(node => node.type)")

    def api_prompt(self) -> dict[str, Any]:
        """The prompt in API format, as the page itself would queue it."""
        return self.page.evaluate("window.app.graphToPrompt().then(prompt => prompt.output)")

    def set_widget(self, node_type: str, widget: str, value: Any) -> None:
        """Set a widget of the only node of a type, as a choice on the page does."""
        self.page.evaluate(
            """([type, name, value]) => {
                const [node] = window.app.graph.nodes.filter(node => node.type === type);
                const widget = node.widgets.find(widget => widget.name === name);
                widget.value = value;
                widget.callback?.(value);
            }""",
            [node_type, widget, value],
        )

    def run(self, timeout: float = 300) -> dict[str, Any]:
        """Press Run and wait for the run's end. Returns its history entry."""
        with self.page.expect_response("**/api/prompt", timeout=30_000) as answered:
            self.page.get_by_test_id("queue-button").click()
        answer = answered.value
        assert answer.ok, f"the page's prompt was refused: {answer.text()}"
        prompt_id = answer.json()["prompt_id"]
        deadline = time.monotonic() + timeout
        # Wait on the page, so that its own events are handled meanwhile.
        while not self.server.get(f"/history/{prompt_id}"):
            assert time.monotonic() < deadline, f"no end after {timeout:.0f} s"
            self.page.wait_for_timeout(200)
        self.page.wait_for_timeout(1000)
        return self.server.wait(prompt_id, timeout=10)

    def picture(self, name: str) -> Path:
        """Save a screenshot of the page."""
        path = self.artifacts / f"{name}.png"
        self.page.screenshot(path=path)
        return path
