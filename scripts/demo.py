"""Runs the shipped workflow on the sample clip in a real, headless ComfyUI.

Leaves `output/demo.mp4` and `output/before_after.png` (input, bicubic, upscaled). With `--models`
it uses the weights of a ComfyUI models folder; otherwise small generated weights, which show that
everything works but not what the trained networks can do.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
from comfy_server import ComfyServer
from layout import DEV, ROOT, comfyui_path, default_version, environment_python
from PIL import Image

sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

OUTPUT = ROOT / "output"
SAMPLE = ROOT / "assets" / "sample.mp4"
TWIN = ROOT / "tests" / "server" / "api" / "upscale_video.json"
# A third of the reference's steps: enough for a look, a few minutes on two CPU cores.
STEPS = 10

log = logging.getLogger("demo")


def main() -> None:
    """Run the demo; see the module's text."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse()
    base = DEV / "demo"
    base.mkdir(parents=True, exist_ok=True)
    lay_models(base / "models", options.models)
    prompt = load_prompt(options.clip.name, options.steps)
    with ComfyServer(comfyui_path(default_version()), environment_python(), base, ROOT) as server:
        server.upload(options.clip)
        log.info("Upscaling %s in %d steps...", options.clip.name, options.steps)
        started = time.monotonic()
        saved = server.output_path(server.run(prompt, timeout=24 * 3600))
        log.info("Done in %.0f s.", time.monotonic() - started)
    OUTPUT.mkdir(exist_ok=True)
    video, picture = OUTPUT / "demo.mp4", OUTPUT / "before_after.png"
    shutil.copy(saved, video)
    before_after(options.clip, video).save(picture)
    for path in (video, picture):
        log.info("%s", path.relative_to(ROOT))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Upscale a clip with the shipped workflow.")
    parser.add_argument("--clip", type=Path, default=SAMPLE, help="the video to upscale")
    parser.add_argument("--models", type=Path, help="a ComfyUI models folder with real weights")
    parser.add_argument("--steps", type=int, default=STEPS, help="sampling steps")
    return parser.parse_args()


def lay_models(place: Path, given: Path | None) -> None:
    """Put the user's models folder, or generated weights, where the server looks."""
    if place.is_symlink():
        place.unlink()
    if given is not None:
        if place.exists():
            shutil.rmtree(place)
        place.symlink_to(given.resolve(), target_is_directory=True)
        return
    from demo_weights import write_all
    from torchvision_shim.prestartup_script import install

    install()
    write_all(place)
    log.info(
        "The weights are small, generated and NOT trained: this shows the path, not the quality."
    )


def load_prompt(clip: str, steps: int) -> dict[str, Any]:
    """The shipped workflow in API form, on this clip and with so many steps."""
    prompt = json.loads(TWIN.read_text())
    settings = {
        "LoadVideo": {"file": clip},
        "UpscaleAVideoSegmentSampler": {"steps": steps},
        "UpscaleAVideoPropagation": {"steps": f"last {min(3, steps)}"},
    }
    for node in prompt.values():
        node["inputs"] |= settings.get(node["class_type"], {})
    return prompt


def before_after(source: Path, result: Path) -> Image.Image:
    """The middle frame as it came in, enlarged by bicubic interpolation, and upscaled."""
    small, large = middle_frame(source), middle_frame(result)
    panels = [
        small.resize(large.size, Image.Resampling.NEAREST),
        small.resize(large.size, Image.Resampling.BICUBIC),
        large,
    ]
    return Image.fromarray(np.concatenate([np.asarray(panel) for panel in panels], axis=1))


def middle_frame(path: Path) -> Image.Image:
    """The frame in the middle of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return frames[len(frames) // 2].to_image()


if __name__ == "__main__":
    main()
