"""Writes the shipped workflows, and their API twins for tests, from one description.

The workflow is what a user opens; the twin is the same graph in the form that a server runs. A
browser test lets ComfyUI's own frontend turn the one into the other and compares. The numbers are
in `presets.py`.

    python scripts/make_workflows.py
"""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

from comfy_server import ComfyServer
from layout import ROOT, comfyui_path, default_version, environment_python
from presets import AUTHORS, INCLUDED, Preset
from workflow_forms import Graph, Out, api, ui

WORKFLOWS = ROOT / "workflows"
TWINS = ROOT / "tests" / "server" / "api"
SAMPLE = "sample.mp4"

log = logging.getLogger("make_workflows")


def upscale_video() -> Graph:
    """LoadVideo to SaveVideo through the five stages, with the included weights."""
    g = Graph()

    def add(type: str, pos: tuple[int, int], size: tuple[int, int], **inputs: Any) -> int:
        return g.add(type, pos, size, **{**inputs, **INCLUDED.get(type, {})})

    video = g.add("LoadVideo", (-20, 120), (300, 420), file=SAMPLE)
    parts = g.add("GetVideoComponents", (-20, 600), (300, 120), video=Out(video, 0))
    frames, audio, fps = (Out(parts, slot) for slot in range(3))

    unet = add("UpscaleAVideoUNetLoader", (340, 120), (360, 90), weight_dtype="default")
    vae = add("UpscaleAVideoVAELoader", (340, 270), (360, 70))
    flow = add("UpscaleAVideoFlowLoader", (340, 400), (360, 70))
    clip = add("UpscaleAVideoTextEncoderLoader", (340, 530), (360, 70))
    positive = add(
        "CLIPTextEncode",
        (760, 120),
        (380, 130),
        title="What the clip shows (positive prompt)",
        text="best quality, extremely detailed",
        clip=Out(clip, 0),
    )
    negative = add(
        "CLIPTextEncode",
        (760, 310),
        (380, 130),
        title="What to avoid (negative prompt)",
        text="blur, worst quality",
        clip=Out(clip, 0),
    )
    conditioning = add(
        "UpscaleAVideoConditioning",
        (760, 500),
        (380, 180),
        frames=frames,
        seed=0,
        positive=Out(positive, 0),
        negative=Out(negative, 0),
    )
    propagation = add(
        "UpscaleAVideoPropagation",
        (1200, 120),
        (360, 260),
        flow_model=Out(flow, 0),
        frames=frames,
        strength=0.5,
        relative_threshold=0.001,
        absolute_threshold=0.05,
        flow_iterations=20,
    )
    sampler = add(
        "UpscaleAVideoSegmentSampler",
        (1200, 440),
        (360, 320),
        model=Out(unet, 0),
        positive=Out(conditioning, 0),
        negative=Out(conditioning, 1),
        latent=Out(conditioning, 2),
        seed=0,
        segment_length=8,
        overlap=2,
        propagation=Out(propagation, 0),
    )
    decode = add(
        "UpscaleAVideoVAEDecode",
        (1620, 120),
        (360, 200),
        samples=Out(sampler, 0),
        vae=Out(vae, 0),
        frames=frames,
        lr_guidance=1.0,
        tile=0,
        tile_overlap=16,
    )
    made = add(
        "CreateVideo",
        (1620, 380),
        (360, 130),
        images=Out(decode, 0),
        fps=fps,
        audio=audio,
    )
    g.add(
        "SaveVideo",
        (1620, 570),
        (360, 380),
        video=Out(made, 0),
        filename_prefix="video/upscaled",
        format="auto",
        codec="auto",
    )
    g.group("1  Your clip", (-40, 40, 340, 700), "#3f789e")
    g.group("2  Models", (320, 40, 400, 580), "#8A8")
    g.group("3  Text and low-res conditioning", (740, 40, 420, 660), "#b58b2a")
    g.group("4  Sampling along the motion", (1180, 40, 400, 1020), "#a1309b")
    g.group("5  Decode and save", (1600, 40, 400, 1020), "#88A")
    g.note((-40, 790), (580, 270), NOTE_START + authors_settings())
    g.note((560, 790), (600, 270), NOTE_SETTINGS)
    return g


def long_video() -> Graph:
    """A file of any length into a file, streamed and resumed, with the included weights."""
    g = Graph()

    def add(type: str, pos: tuple[int, int], size: tuple[int, int], **inputs: Any) -> int:
        return g.add(type, pos, size, **{**inputs, **INCLUDED.get(type, {})})

    video = g.add("LoadVideo", (-20, 120), (300, 420), file=SAMPLE)
    options = g.add(
        "UpscaleAVideoLongVideoOptions",
        (-20, 640),
        (300, 360),
        codec="h264",
        container=".mp4",
        crf=-1,
        pixel_format="auto",
        cut_detection="auto",
        cuts="",
        tile=0,
        tile_overlap=16,
        propagation_strength=0.5,
        segment_length=8,
        overlap=2,
        frames_per_group=INCLUDED["UpscaleAVideoVAEDecode"]["frames_per_group"],
        lr_guidance=1.0,
        part_length=48,
    )
    unet = add("UpscaleAVideoUNetLoader", (340, 120), (360, 90), weight_dtype="default")
    vae = add("UpscaleAVideoVAELoader", (340, 270), (360, 70))
    flow = add("UpscaleAVideoFlowLoader", (340, 400), (360, 70))
    clip = add("UpscaleAVideoTextEncoderLoader", (340, 530), (360, 70))
    texts = [
        add(
            "CLIPTextEncode",
            (340, y),
            (360, 130),
            title=title,
            text=text,
            clip=Out(clip, 0),
        )
        for y, title, text in (
            (660, "What the video shows (positive)", "best quality, extremely detailed"),
            (840, "What to avoid (negative)", "blur, worst quality"),
        )
    ]
    g.add(
        "UpscaleAVideoLongVideo",
        (760, 120),
        (420, 760),
        model=Out(unet, 0),
        vae=Out(vae, 0),
        video=Out(video, 0),
        positive=Out(texts[0], 0),
        negative=Out(texts[1], 0),
        flow_model=Out(flow, 0),
        options=Out(options, 0),
        seed=0,
        filename_prefix="video/upscaled",
        **long_settings(INCLUDED),
    )
    g.group("1  Your video", (-40, 40, 340, 980), "#3f789e")
    g.group("2  Models and text", (320, 40, 400, 980), "#8A8")
    g.group("3  Upscale", (740, 40, 460, 980), "#a1309b")
    g.note((1240, 40), (520, 460), NOTE_LONG)
    return g


def long_settings(preset: Preset) -> dict[str, Any]:
    """The values of a preset, under the names of 'Upscale Long Video'."""
    values = {name: value for inputs in preset.values() for name, value in inputs.items()}
    names = ("noise_level", "guidance", "color_fix")
    sampler = preset["UpscaleAVideoSegmentSampler"]
    return {
        **{name: values[name] for name in names},
        "steps": sampler["steps"],
        "propagation_steps": preset["UpscaleAVideoPropagation"]["steps"],
    }


NOTE_LONG = """\
## Upscale a long video 4x

The video goes from file to file; memory does not grow with its length. Sound, frame times and
colours are kept.

- **Scene cuts** are found first; nothing is carried over them. Give cuts by hand in the options
  where the search errs.
- **Every part of 48 frames is kept** as soon as it is done, in *output/upscale_a_video_jobs*. After
  a crash or *Cancel*, queue the same again: it goes on. Other settings or another video start anew.
- **Out of memory** is answered by smaller groups and tiles; the report says so.
- The finished file is in ComfyUI's output folder; the parts are removed then.

Try a few seconds first: the node says how long the rest will take once the first part is done."""

NOTE_START = """\
## Upscale a video 4x

1. **Your clip**: choose a video. Start with a second or two: cost grows with frames and pixels.
2. **Models**: the small ones that come with the pack are chosen; nothing has to be downloaded.
3. Press **Run**. Sound and frame rate are kept.

### With the authors' weights

Larger, slower, for non-commercial use only; the README says where they come from. Choose all four
files, and set these numbers:

"""
NOTE_SETTINGS = """\
## The settings that matter

- **noise_level**: low stays close to the input; high invents and repairs more.
- **Text**: the included model reads only whether a text names flaws (*blur, worst quality*): leave
  that in the negative one. The authors' reads everything: say what the clip shows, and keep *best
  quality, extremely detailed* at the end.
- **guidance**: higher is sharper and less calm.
- **Propagation steps**: a few late ones (*24,26,28* of 30, or *last 3*) against flicker. Leave
  empty for cuts and very fast motion.
- **color_fix**: *none* is the reference; *adain* and *wavelet* keep the input's colours."""


def authors_settings() -> str:
    """The preset of the authors' weights, as Markdown."""
    values = {name: value for inputs in AUTHORS.values() for name, value in inputs.items()}
    files = ", ".join(f"*{value}*" for name, value in values.items() if name.endswith("_name"))
    sampler, plan = AUTHORS["UpscaleAVideoSegmentSampler"], AUTHORS["UpscaleAVideoPropagation"]
    return (
        f"- {files}\n"
        f"- **noise_level** {values['noise_level']}, **guidance** {sampler['guidance']:g}, "
        f"**steps** {sampler['steps']}, **propagation steps** *{plan['steps']}*"
    )


def main() -> None:
    """Ask a real ComfyUI for its node definitions, and write every workflow and twin."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as base:
        python, comfyui = environment_python(), comfyui_path(default_version())
        with ComfyServer(comfyui, python, Path(base), ROOT) as server:
            info = server.object_info()
    TWINS.mkdir(parents=True, exist_ok=True)
    graphs = {"upscale_video": upscale_video(), "long_video": long_video()}
    for name, graph in graphs.items():
        for folder, form in ((WORKFLOWS, ui), (TWINS, api)):
            path = folder / f"{name}.json"
            path.write_text(json.dumps(form(graph, info), indent=1) + "\n")
            log.info("%s", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
