"""Writes the shipped workflows, and their API twins for tests, from one description.

Users open the workflow; the twin is the same graph in the API format, which a server runs. In a
browser test ComfyUI's frontend converts the workflow, and the result is compared with the twin.
The settings are in `presets.py`.

    python -m scripts.workflows.make
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.env.layout import ROOT, comfyui_path, default_version, environment_python
from scripts.server.comfy_server import ComfyServer
from scripts.workflows import blueprint, notes, variants
from scripts.workflows.forms import Graph, Out, api, ui
from scripts.workflows.presets import INCLUDED, SETTINGS, Preset
from scripts.workflows.stages import PITCH, SAMPLE, TALL, WIDE, Stages
from uav_core.frames.output_size import WHEN

SUBGRAPHS = ROOT / "subgraphs"
WORKFLOWS = ROOT / "workflows"
TWINS = ROOT / "tests" / "server" / "api"

# Settings that are inputs of 'Upscale Long Video'; its options have the others.
LONG_TAKES = ("noise_level", "guidance", "steps", "propagation_steps")

log = logging.getLogger("make_workflows")


def upscale_video() -> Graph:
    """LoadVideo to SaveVideo through the five stages, with the included weights."""
    g = Stages()
    frames, audio, fps = g.video(10, 80)
    g.upscale(2 * PITCH + 10, variants.column(g, PITCH), frames, fps, audio)
    g.group("1  Your clip", (0, 0, 340, 570), variants.SOURCE)
    variants.upscale_groups(g, 2 * PITCH)
    g.note((0, 610), (340, TALL - 610), notes.START + "\n\n" + notes.authors())
    g.note((2 * PITCH, 610), (340, TALL - 610), notes.SETTINGS)
    return g


def simple() -> Graph:
    """A video file upscaled to a file by one node."""
    g = Stages()
    video = g.add("LoadVideo", (0, 60), (300, 420), file=SAMPLE)
    g.add("UpscaleAVideoUpscale", (360, 60), (380, 580), video=Out(video, 0))
    g.group("1  Your video", (-20, -20, 340, 520), variants.SOURCE)
    g.group("2  Upscale", (340, -20, 420, 680), variants.SAMPLING)
    g.note((790, 10), (340, 280), notes.SIMPLE)
    return g


def long_video(note: str = notes.LONG, **chosen: Any) -> Graph:
    """A video file of any length, upscaled as a stream that can be resumed; included weights.

    ``chosen`` are further options of the long video.
    """
    g = Stages()
    video = g.add("LoadVideo", (10, 80), (WIDE, 340), file=SAMPLE)
    values = g.settings(10, 520)
    options = g.add(
        "UpscaleAVideoLongVideoOptions",
        (2 * PITCH + 10, 80),
        (WIDE, 520),
        codec="h264",
        container=".mp4",
        crf=-1,
        pixel_format="auto",
        cut_detection="auto",
        cuts="",
        tile=0,
        tile_overlap=16,
        propagation_strength=values["propagation_strength"],
        segment_length=8,
        overlap=2,
        frames_per_group=INCLUDED["UpscaleAVideoVAEDecode"]["frames_per_group"],
        lr_guidance=1.0,
        part_length=48,
        self_ensemble=values["self_ensemble"],
        **chosen,
    )
    models = g.models(PITCH + 10, 80)
    texts = g.texts(PITCH + 10, 600, models.clip)
    g.add(
        "UpscaleAVideoLongVideo",
        (3 * PITCH + 10, 80),
        (WIDE, 680),
        model=models.unet,
        vae=models.vae,
        video=Out(video, 0),
        positive=texts[0],
        negative=texts[1],
        flow_model=models.flow,
        options=Out(options, 0),
        seed=0,
        filename_prefix="video/upscaled",
        **{**long_settings(INCLUDED), **{name: values[name] for name in LONG_TAKES}},
    )
    g.group("1  Your video", (0, 0, 340, 430), variants.SOURCE)
    g.group("2  Settings", (0, 440, 340, 440), variants.SETTINGS)
    g.group("3  Models and text", (PITCH, 0, 340, 880), variants.LOADERS)
    g.group("4  Options", (2 * PITCH, 0, 340, 880), variants.TEXT)
    g.group("5  Upscale", (3 * PITCH, 0, 340, 880), variants.SAMPLING)
    g.note((4 * PITCH, 30), (340, 550), note)
    g.note((4 * PITCH, 620), (340, 260), notes.authors())
    return g


def old_footage() -> Graph:
    """The long video workflow for old footage: deinterlaced, and twice the size."""
    return long_video(
        notes.FOOTAGE,
        output_size="factor",
        factor=2.0,
        short_side=1080,
        width=1920,
        height=1080,
        aspect="fit",
        resize=WHEN["after"],
        guidance_start=0.0,
        guidance_end=1.0,
        deinterlace="auto",
    )


def long_settings(preset: Preset) -> dict[str, Any]:
    """The values of a preset for the inputs of 'Upscale Long Video'."""
    return {
        **{name: preset[SETTINGS][name] for name in LONG_TAKES},
        "color_fix": preset["UpscaleAVideoVAEDecode"]["color_fix"],
    }


GRAPHS: dict[str, Callable[[], Graph]] = {
    "1_upscale_a_video": simple,
    "upscale_video": upscale_video,
    "long_video": long_video,
    "single_image": variants.single_image,
    "compare_settings": variants.compare_settings,
    "old_footage": old_footage,
    "after_generator": variants.after_generator,
    "low_vram": variants.low_vram,
}


def main() -> None:
    """Get the node definitions of a real ComfyUI, and write every workflow and twin."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as base:
        python, comfyui = environment_python(), comfyui_path(default_version())
        with ComfyServer(comfyui, python, Path(base), ROOT) as server:
            info = server.object_info()
    for name, make in GRAPHS.items():
        graph = make()
        for folder, form in ((WORKFLOWS, ui), (TWINS, api)):
            write(folder / f"{name}.json", form(graph, info))
    write(SUBGRAPHS / f"{blueprint.NAME}.json", blueprint.blueprint(info))


def write(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in a fixed format, so that unchanged content gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    log.info("%s", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
