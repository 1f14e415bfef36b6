"""Runs the shipped workflow on the sample clip in a real, headless ComfyUI.

Writes to `output/`:

- `demo.mp4`, the upscaled clip;
- `before_after.png`, a frame and details of it: input, bicubic, upscaled, original if known;
- `comparison.txt` and `comparison.json`, the measures of bicubic and upscaled; without an original
  only the measures that need none.

It uses the included weights. With `--models`, the models folder of a ComfyUI with the authors'
weights as `uav_core.convert` writes them, it uses those and their settings.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from scripts.env.layout import DEV, ROOT, comfyui_path, default_version, environment_python
from scripts.pictures.before_after import before_after
from scripts.server.comfy_server import ComfyServer
from scripts.workflows.presets import AUTHORS, SETTINGS, Preset, with_preset

sys.path.extend([str(ROOT), str(ROOT / "tests" / "support")])
from torchvision_shim.prestartup_script import install as complete_torchvision

from uav_core.flow.builtin import BuiltinFlow
from uav_core.metrics import Comparison, Motion, compare, estimate_motion, joint_borders
from uav_core.sampling.pipeline import bicubic
from uav_core.sampling.presets import CUSTOM

OUTPUT = ROOT / "output"
SAMPLE = ROOT / "assets" / "sample.mp4"
# The same clip four times as large, made from a still larger source.
ORIGINAL = ROOT / "assets" / "sample_x4.mp4"
TWIN = ROOT / "tests" / "server" / "api" / "upscale_video.json"
# The motion for the warping error is estimated on frames of half the size, or smaller for large
# clips, as it takes most of the time of measuring.
SHRUNK_FOR_MOTION, LONGEST_SIDE_FOR_MOTION = 2, 640
DECODE, SAVE = "UpscaleAVideoVAEDecode", "SaveVideo"

# Progress messages of the slow nodes, by type; and the share of a node's work between messages.
DOING = {
    "UpscaleAVideoSegmentSampler": "Following the motion and sampling",
    DECODE: "Decoding",
}
EVERY = 0.1

log = logging.getLogger("demo")


def main() -> None:
    """Run the demo; see the module docstring."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse()
    base = DEV / "demo"
    base.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(base / "output", ignore_errors=True)  # output of the last run
    lay_models(base / "models", options.models)
    prompt = load_prompt(options.clip.name, options.models is not None, options.steps)
    original = read_video(ORIGINAL) if options.clip.resolve() == SAMPLE else None
    # The slowest measure needs only the original, and a server leaves a core idle while it starts,
    # so compute it now.
    motion = None if original is None else motion_ahead(as_clip(original))
    with ComfyServer(comfyui_path(default_version()), environment_python(), base, ROOT) as server:
        server.upload(options.clip)
        log.info("Upscaling %s in %d steps...", options.clip.name, steps_of(prompt))
        started = time.monotonic()
        number = server.queue(prompt)
        entry = server.wait(number, 24 * 3600, Teller(server, prompt, number).tell)
        log.info("Done in %.0f s.", time.monotonic() - started)
        video = server.output_path(entry, find(prompt, SAVE))
        upscaled = read_pictures(server.output_paths(entry, find(prompt, "SaveImage")))
    OUTPUT.mkdir(exist_ok=True)
    shutil.copy(video, OUTPUT / "demo.mp4")
    borders = joints(prompt, len(upscaled))
    show(read_video(options.clip), upscaled, original, borders, motion)
    for name in ("demo.mp4", "before_after.png", "comparison.txt", "comparison.json"):
        log.info("%s", (OUTPUT / name).relative_to(ROOT))


class Shares:
    """Logs the progress of a piece of work, at every share EVERY of it."""

    def __init__(self) -> None:
        self._last: tuple[str, int] = "", -1

    def __call__(self, stage: str, done: int, total: int) -> None:
        at = stage, int(done / total / EVERY)
        if at != self._last:
            self._last = at
            log.info("%s: %d%%", stage, 100 * done // total)


class Teller:
    """Logs the progress of the slow nodes from a server's events."""

    def __init__(self, server: ComfyServer, prompt: dict[str, Any], number: str) -> None:
        self.server, self.prompt, self.number = server, prompt, number
        self._shares, self._heard = Shares(), 0

    def tell(self) -> None:
        """Log the events since the last call."""
        events = self.server.events.all("progress", self.number)
        new, self._heard = events[self._heard :], len(events)
        for event in new:
            stage = DOING.get(self.prompt[str(event.data["node"])]["class_type"])
            if stage is not None:
                self._shares(stage, int(event.data["value"]), int(event.data["max"]))


def side_for_motion(clip: torch.Tensor) -> int:
    """The longer side at which the motion of a clip is estimated."""
    return min(max(clip.shape[-2:]) // SHRUNK_FOR_MOTION, LONGEST_SIDE_FOR_MOTION)


def motion_ahead(clip: torch.Tensor) -> Future[Motion]:
    """The motion for the warping error, estimated in a thread while the server runs."""
    found: Future[Motion] = Future()
    shares = Shares()

    def tell(done: int, total: int) -> None:
        shares("Motion of the original, for the measures", done, total)

    def work() -> None:
        torch.set_num_threads(1)  # in this thread, as the server needs the other cores
        try:
            found.set_result(estimate_motion(BuiltinFlow(), clip, side_for_motion(clip), tell))
        except BaseException as error:
            found.set_exception(error)

    # A daemon thread, so that the program can end at once if the server fails.
    threading.Thread(target=work, daemon=True).start()
    return found


def show(
    small: np.ndarray,
    upscaled: np.ndarray,
    original: np.ndarray | None,
    borders: tuple[int, ...],
    motion: Future[Motion] | None,
) -> None:
    """Write the picture and the table that compare the upscaled clip, bicubic and the original."""
    versions = {"bicubic": from_clip(bicubic(as_clip(small))), "Upscale-A-Video": upscaled}
    if original is not None:
        versions["original"] = original
    picture_of(small, versions).save(OUTPUT / "before_after.png")
    comparison = measure(versions, borders, motion and motion.result())
    (OUTPUT / "comparison.txt").write_text(comparison.to_text() + "\n")
    (OUTPUT / "comparison.json").write_text(comparison.to_json() + "\n")
    log.info("\n%s\n", comparison.to_text())


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Upscale a clip with the shipped workflow.")
    parser.add_argument("--clip", type=Path, default=SAMPLE, help="the video to upscale")
    parser.add_argument(
        "--models", type=Path, help="a ComfyUI models folder with the authors' weights"
    )
    parser.add_argument(
        "--steps", type=int, help="number of sampling steps (default: the workflow's)"
    )
    return parser.parse_args()


def lay_models(place: Path, given: Path | None) -> None:
    """Link the user's models folder to ``place``, the server's; without one remove old models."""
    if place.is_symlink():
        place.unlink()
    elif place.exists():
        shutil.rmtree(place)
    if given is not None:
        place.symlink_to(given.resolve(), target_is_directory=True)


def load_prompt(clip: str, authors: bool, steps: int | None) -> dict[str, Any]:
    """The shipped workflow in API form on this clip; it also saves the frames uncompressed."""
    prompt = json.loads(TWIN.read_text())
    if authors:
        prompt = with_preset(prompt, AUTHORS)
    prompt = with_preset(prompt, {"LoadVideo": {"file": clip}})
    if steps is not None:
        # "last N" fits a run of any length; step numbers may be outside of a short one.
        last = f"last {min(3, steps)}"
        settings: Preset = {SETTINGS: {"speed": CUSTOM, "steps": steps, "propagation_steps": last}}
        prompt = with_preset(prompt, settings)
    # The video is compressed, so measures and pictures use the decoder's own frames.
    frames = {"images": [find(prompt, DECODE), 0], "filename_prefix": "frames/upscaled"}
    prompt["frames"] = {"class_type": "SaveImage", "inputs": frames}
    return prompt


def find(prompt: dict[str, Any], kind: str) -> str:
    """The id of the only node of type ``kind``."""
    (found,) = (key for key, node in prompt.items() if node["class_type"] == kind)
    return found


def steps_of(prompt: dict[str, Any]) -> int:
    """The sampling steps of a prompt."""
    return prompt[find(prompt, SETTINGS)]["inputs"]["steps"]


def read_pictures(paths: list[Path]) -> np.ndarray:
    """Picture files as one clip (t, h, w, 3), uint8."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])


def read_video(path: Path) -> np.ndarray:
    """A video as (t, h, w, 3), uint8."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def as_clip(pixels: np.ndarray) -> torch.Tensor:
    """Convert (t, h, w, 3), uint8, to the core's (1, 3, t, h, w) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def from_clip(clip: torch.Tensor) -> np.ndarray:
    """The reverse of ``as_clip``, clipped and rounded as in a file."""
    pixels = (clip[0].clamp(-1, 1) + 1) * 127.5
    return pixels.round().byte().permute(1, 2, 3, 0).numpy()


def picture_of(small: np.ndarray, versions: dict[str, np.ndarray]) -> Image.Image:
    """The middle frame of the clip and its enlarged versions, with details."""
    middle = len(small) // 2
    pictures = {name: Image.fromarray(pixels[middle]) for name, pixels in versions.items()}
    *_, best = pictures.values()
    source = Image.fromarray(small[middle])
    label = f"input, {source.width}x{source.height}"
    enlarged = source.resize(best.size, Image.Resampling.NEAREST)
    return before_after({label: enlarged, **pictures}, list(pictures)[-1])


def joints(prompt: dict[str, Any], frames: int) -> tuple[int, ...]:
    """The frames at which segments and decode groups join."""
    sampler = prompt[find(prompt, "UpscaleAVideoSegmentSampler")]["inputs"]
    group = prompt[find(prompt, DECODE)]["inputs"]["frames_per_group"]
    return joint_borders(frames, sampler["segment_length"], sampler["overlap"], group)


def measure(
    versions: dict[str, np.ndarray], borders: tuple[int, ...], motion: Motion | None
) -> Comparison:
    """The table of measures; those of similarity only if the original is known."""
    complete_torchvision()  # the package behind some of the measures imports it
    clips, shares = {name: as_clip(pixels) for name, pixels in versions.items()}, Shares()
    return compare(
        clips,
        clips.get("original"),
        motion=motion,
        borders=borders,
        longest_side=side_for_motion(clips["bicubic"]),
        progress=lambda done, total: shares("Measuring", done, total),
    )


if __name__ == "__main__":
    main()
