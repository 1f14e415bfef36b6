"""Make screenshots of nodes on ComfyUI's page for the nodes' help: `web/docs/*_node.jpg`.

They are for nodes that show settings or text, and use a real server and a real browser.

    python -m scripts.pictures.help_screenshots
"""

from __future__ import annotations

import io
import logging
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, ViewportSize, sync_playwright

from scripts.env.layout import (
    ROOT,
    comfyui_path,
    default_version,
    environment_python,
)
from scripts.pictures.help_pictures import DOCS
from scripts.server.browser import browser
from scripts.server.comfy_server import ComfyServer
from scripts.workflows.stages import SAMPLE

sys.path.insert(0, str(ROOT / "tests" / "support"))
from clips import shrink_clip
from comfy_page import ComfyPage

VIEW: ViewportSize = {"width": 1500, "height": 1000}
MARGIN = 12
LARGEST = 60_000  # text needs more bytes than pictures
# The largest scale at which nodes are shown.
SCALE = 1.3
# Scrolls to the nodes of these types and returns their box on the screen.
SHOW = """([types, most]) => {
    const nodes = window.app.graph.nodes.filter(node => types.includes(node.type));
    const left = Math.min(...nodes.map(n => n.pos[0]));
    const top = Math.min(...nodes.map(n => n.pos[1])) - 32;
    const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]));
    const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]));
    const scale = Math.min(most, 840 / (bottom - top), 1100 / (right - left));
    const ds = window.app.canvas.ds;
    ds.scale = scale;
    ds.offset = [-left + 120 / scale, -top + 100 / scale];
    window.app.canvas.setDirty(true, true);
    return [120, 100, 120 + (right - left) * scale, 100 + (bottom - top) * scale];
}"""
# The page shows texts only on this node of ComfyUI.
PREVIEW = "PreviewAny"
READ = """([type, preview, width]) => {
    window.app.graph.clear();
    const [node, text] = [type, preview].map(t => window.LiteGraph.createNode(t));
    node.pos = [100, 100];
    window.app.graph.add(node);
    text.pos = [100, 190 + node.size[1]];
    window.app.graph.add(text);
    node.connect(0, text, 0);
    node.size = [width, node.size[1]];
    text.size = [width, 300];
}"""

ADD_LOADER = """() => {
    const node = window.LiteGraph.createNode("UpscaleAVideoLoader");
    node.pos = [0, 1200];
    node.size = [380, node.size[1]];
    window.app.graph.add(node);
}"""

log = logging.getLogger("help_screenshots")


def main() -> None:
    """Start a server and a browser, and make all screenshots."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        server = ComfyServer(comfyui_path(default_version()), environment_python(), base, ROOT)
        with server, sync_playwright() as playwright, browser(playwright) as shown:
            clip = shrink_clip(ROOT / "assets" / "sample.mp4", base / SAMPLE, 8, (48, 32))
            server.upload(clip)
            page = ComfyPage(shown.new_page(viewport=VIEW), server, base)
            page.open()
            page.page.evaluate(
                "window.app.extensionManager.setting.set('Comfy.Minimap.Visible', false)"
            )
            make(page)


def make(page: ComfyPage) -> None:
    """Make all screenshots on an open page."""
    page.open_template("1_upscale_a_video")
    page.set_widget("UpscaleAVideoUpscale", "quality", "draft")
    page.run(timeout=600)
    page.page.wait_for_timeout(6000)
    keep(page.page, "upscale", ["UpscaleAVideoUpscale"])
    page.page.evaluate(ADD_LOADER)
    keep(page.page, "loader", ["UpscaleAVideoLoader"])
    page.page.get_by_role("button", name="Templates").first.click()
    page.open_template("upscale_video")
    keep(page.page, "text_encoder", ["UpscaleAVideoTextEncoderLoader", "CLIPTextEncode"])
    page.page.get_by_role("button", name="Templates").first.click()
    page.open_template("long_video")
    page.set_widget("UpscaleAVideoSettings", "steps", 2)
    page.set_widget("UpscaleAVideoSettings", "propagation_steps", "last 1")
    keep(page.page, "long_video_options", ["UpscaleAVideoLongVideoOptions"])
    page.run(timeout=600)
    page.page.wait_for_timeout(6000)  # until the message that the job is done has faded
    # Hide the video player, which does not follow a change of scale.
    page.page.evaluate("document.querySelectorAll('video').forEach(v => (v.style.opacity = 0))")
    keep(page.page, "long_video", ["UpscaleAVideoLongVideo"], share=0.57)
    for name, kind, width in (
        ("long_video_jobs", "UpscaleAVideoLongVideoJobs", 620),
        ("check_weights", "UpscaleAVideoCheckWeights", 760),
    ):
        page.page.evaluate(READ, [kind, PREVIEW, width])
        page.run(timeout=120)
        page.page.wait_for_timeout(6000)
        keep(page.page, name, [kind, PREVIEW])


def keep(page: Page, name: str, kinds: list[str], share: float = 1.0) -> None:
    """Save a screenshot of the nodes of these types, or of its upper ``share``."""
    left, top, right, bottom = page.evaluate(SHOW, [kinds, SCALE])
    for _ in range(3):  # until the page's elements on a node have followed it
        page.wait_for_timeout(500)
        page.evaluate("window.app.canvas.setDirty(true, true)")
    whole = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    bottom = top + share * (bottom - top)
    picture = whole.crop(
        (round(left) - MARGIN, round(top) - MARGIN, round(right) + MARGIN, round(bottom) + MARGIN)
    )
    path = DOCS / f"{name}_node.jpg"
    for quality in range(88, 40, -6):
        picture.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST:
            break
    log.info("%s: %dx%d, %d bytes", path.name, *picture.size, path.stat().st_size)


if __name__ == "__main__":
    main()
