"""Make `workflows/*.jpg`: the results of the shipped workflows beside their inputs.

The workflows run on the first frames of the sample clip, with their own settings, in a browser. The
input is left of the line, the result right of it; the comparison is shown as it is.

    python -m scripts.pictures.make_thumbnail [NAME ...]
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import ViewportSize, sync_playwright

from scripts.env.layout import (
    ROOT,
    comfyui_path,
    default_version,
    environment_python,
)
from scripts.server.browser import browser
from scripts.server.comfy_server import ComfyServer
from scripts.workflows.make import GRAPHS, WORKFLOWS
from scripts.workflows.stages import PICTURE, SAMPLE

sys.path.insert(0, str(ROOT / "tests" / "support"))
from clips import first_frame, shrink_clip
from comfy_page import ComfyPage

SAVES = ("SaveVideo", "SaveImage")
AS_IT_IS = ("compare_settings",)
VIEW: ViewportSize = {"width": 1600, "height": 1000}
WIDTH = 640
FRAMES, SIZE = 8, (96, 64)

log = logging.getLogger("make_thumbnail")


def main() -> None:
    """Run the workflows on the page, and save a picture of each result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in sys.argv[1:] or GRAPHS:
        target = WORKFLOWS / f"{name}.jpg"
        with tempfile.TemporaryDirectory() as folder:
            picture = picture_of_run(Path(folder), name)
        height = round(picture.height * WIDTH / picture.width)
        picture.resize((WIDTH, height), Image.Resampling.LANCZOS).save(target, quality=88)
        log.info("%s: %d bytes", target.relative_to(ROOT), target.stat().st_size)


def picture_of_run(base: Path, name: str) -> Image.Image:
    """Run a workflow and return its picture."""
    python, comfyui = environment_python(), comfyui_path(default_version())
    server = ComfyServer(comfyui, python, base, ROOT)
    with server, sync_playwright() as playwright, browser(playwright) as shown:
        clip = shrink_clip(ROOT / "assets" / "sample.mp4", base / SAMPLE, FRAMES, SIZE)
        server.upload(clip)
        given = Image.open(first_frame(clip, base / PICTURE))
        server.upload(base / PICTURE)
        page = ComfyPage(shown.new_page(viewport=VIEW), server, base)
        page.open()
        page.open_template(name)
        # Empty if no such node is in the graph; then the only saved file is taken.
        saves = [k for k, n in page.api_prompt().items() if n["class_type"] in SAVES]
        entry = page.run(timeout=3600)
        result = first_picture(server.output_path(entry, *saves), base)
        picture = result if name in AS_IT_IS else divided(given, result)
    return picture


def first_picture(path: Path, base: Path) -> Image.Image:
    """The first frame of a video, or a picture file."""
    if path.suffix != ".png":
        path = first_frame(path, base / "result.png")
    return Image.open(path).convert("RGB")


def divided(given: Image.Image, result: Image.Image) -> Image.Image:
    """The left half of ``given`` and the right half of ``result``, with a line between."""
    picture = given.convert("RGB").resize(result.size, Image.Resampling.NEAREST)
    middle = result.width // 2
    picture.paste(result.crop((middle, 0, *result.size)), (middle, 0))
    picture.paste("white", (middle - 1, 0, middle + 1, result.height))
    return picture


if __name__ == "__main__":
    main()
