"""Writes the shipped workflows, and their API twins for tests, from one description.

The workflow is what a user opens; the twin is the same graph in the form that a server runs. A
browser test lets ComfyUI's own frontend turn the one into the other and compares.

    python scripts/make_workflows.py
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_server import ComfyServer
from layout import ROOT, comfyui_path, default_version, environment_python

WORKFLOWS = ROOT / "workflows"
TWINS = ROOT / "tests" / "server" / "api"
SAMPLE = "sample.mp4"

log = logging.getLogger("make_workflows")


@dataclass(frozen=True)
class Out:
    """One output of a node: what a link starts from."""

    node: int
    slot: int


@dataclass
class Node:
    """One node; ``inputs`` maps names to values, or to the Out they are linked to."""

    type: str
    pos: tuple[int, int]
    size: tuple[int, int]
    inputs: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    color: str = ""


@dataclass
class Graph:
    """A workflow under construction; nodes are numbered from 1 in the order they are added."""

    nodes: list[Node] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)

    def add(self, type: str, pos: tuple[int, int], size: tuple[int, int], **options: Any) -> int:
        """Add a node and return its id; what is not an option of Node is an input."""
        extra = {key: options.pop(key) for key in ("title", "color") if key in options}
        self.nodes.append(Node(type, pos, size, options, **extra))
        return len(self.nodes)

    def group(self, title: str, box: tuple[int, int, int, int], color: str) -> None:
        """A coloured frame around nodes; ``box`` is x, y, width, height."""
        number = len(self.groups) + 1
        self.groups.append(
            {"id": number, "title": title, "bounding": list(box), "color": color, "font_size": 24}
        )

    def note(self, pos: tuple[int, int], size: tuple[int, int], text: str) -> None:
        """A note in Markdown; it exists in the frontend only."""
        self.add("MarkdownNote", pos, size, text=text, color="#432")


def api(graph: Graph, info: dict[str, Any]) -> dict[str, Any]:
    """The graph as a server runs it."""
    prompt = {}
    for number, node in enumerate(graph.nodes, start=1):
        if node.type == "MarkdownNote":
            continue
        specs = _input_specs(info[node.type])
        defaults = {
            name: spec[1].get("default") for name, spec in specs.items() if _is_widget(spec)
        }
        inputs = {
            name: [str(value.node), value.slot] if isinstance(value, Out) else value
            for name, value in {**defaults, **node.inputs}.items()
            if value is not None
        }
        title = node.title or info[node.type]["display_name"]
        prompt[str(number)] = {
            "inputs": inputs,
            "class_type": node.type,
            "_meta": {"title": title},
        }
    return prompt


def ui(graph: Graph, info: dict[str, Any]) -> dict[str, Any]:
    """The graph as the frontend stores it."""
    links: list[list[Any]] = []
    nodes = []
    for number, node in enumerate(graph.nodes, start=1):
        note = node.type == "MarkdownNote"
        specs = {} if note else _input_specs(info[node.type])
        sockets, widgets = [], [node.inputs["text"]] if note else []
        for name, spec in specs.items():
            value = node.inputs.get(name)
            is_widget = _is_widget(spec)
            if name not in node.inputs and is_widget and spec[1].get("default") is None:
                continue
            if not is_widget or isinstance(value, Out):
                socket = {"name": name, "type": _type(spec), "link": None}
                if is_widget:
                    socket["widget"] = {"name": name}
                if isinstance(value, Out):
                    source = info[graph.nodes[value.node - 1].type]["output"][value.slot]
                    link = [len(links) + 1, value.node, value.slot, number, len(sockets), source]
                    links.append(link)
                    socket["link"] = link[0]
                sockets.append(socket)
            if is_widget:
                widgets += _widget_values(name, spec, value)
        nodes.append(_ui_node(number, node, sockets, widgets, info))
    for link in links:
        output = nodes[link[1] - 1]["outputs"][link[2]]
        output["links"] = [*(output["links"] or []), link[0]]
    return {
        "last_node_id": len(nodes),
        "last_link_id": len(links),
        "nodes": nodes,
        "links": links,
        "groups": graph.groups,
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def _ui_node(
    number: int, node: Node, sockets: list[Any], widgets: list[Any], info: dict[str, Any]
) -> dict[str, Any]:
    result = {
        "id": number,
        "type": node.type,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {},
        "order": number - 1,
        "mode": 0,
        "inputs": sockets,
        "outputs": [],
        "properties": {},
        "widgets_values": widgets,
    }
    if node.type != "MarkdownNote":
        definition = info[node.type]
        result["properties"] = {"Node name for S&R": node.type}
        result["outputs"] = [
            {"name": name, "type": kind, "links": None}
            for name, kind in zip(definition["output_name"], definition["output"], strict=True)
        ]
    if node.title:
        result["title"] = node.title
    if node.color:
        result["color"] = result["bgcolor"] = node.color
    return result


def _input_specs(definition: dict[str, Any]) -> dict[str, Any]:
    given = definition["input"]
    return {**given.get("required", {}), **given.get("optional", {})}


def _type(spec: list[Any]) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def _is_widget(spec: list[Any]) -> bool:
    kinds = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
    options = spec[1] if len(spec) > 1 else {}
    return _type(spec) in kinds and not options.get("forceInput")


def _widget_values(name: str, spec: list[Any], value: Any) -> list[Any]:
    options = spec[1] if len(spec) > 1 else {}
    if value is None or isinstance(value, Out):
        value = options.get("default")
    values = [value]
    if options.get("control_after_generate"):
        values.append("fixed")
    if options.get("video_upload") or options.get("image_upload"):
        values.append("image")
    return values


def upscale_video() -> Graph:
    """LoadVideo to SaveVideo through the five stages, with the reference's defaults."""
    g = Graph()
    video = g.add("LoadVideo", (-20, 120), (300, 420), file=SAMPLE)
    parts = g.add("GetVideoComponents", (-20, 600), (300, 120), video=Out(video, 0))
    frames, audio, fps = (Out(parts, slot) for slot in range(3))

    unet = g.add(
        "UpscaleAVideoUNetLoader",
        (340, 120),
        (360, 90),
        unet_name="uav_unet.safetensors",
        weight_dtype="default",
    )
    vae = g.add(
        "UpscaleAVideoVAELoader", (340, 270), (360, 70), vae_name="uav_vae_video.safetensors"
    )
    flow = g.add(
        "UpscaleAVideoFlowLoader", (340, 400), (360, 70), flow_name="uav_flow_raft.safetensors"
    )
    clip = g.add(
        "UpscaleAVideoTextEncoderLoader",
        (340, 530),
        (360, 70),
        text_encoder_name="uav_text_encoder.safetensors",
    )
    positive = g.add(
        "CLIPTextEncode",
        (760, 120),
        (380, 130),
        title="What the clip shows (positive prompt)",
        text="best quality, extremely detailed",
        clip=Out(clip, 0),
    )
    negative = g.add(
        "CLIPTextEncode",
        (760, 310),
        (380, 130),
        title="What to avoid (negative prompt)",
        text="blur, worst quality",
        clip=Out(clip, 0),
    )
    conditioning = g.add(
        "UpscaleAVideoConditioning",
        (760, 500),
        (380, 180),
        frames=frames,
        noise_level=120,
        seed=0,
        positive=Out(positive, 0),
        negative=Out(negative, 0),
    )
    propagation = g.add(
        "UpscaleAVideoPropagation",
        (1200, 120),
        (360, 260),
        flow_model=Out(flow, 0),
        frames=frames,
        steps="24,26,28",
        strength=0.5,
        relative_threshold=0.001,
        absolute_threshold=0.05,
        flow_iterations=20,
    )
    sampler = g.add(
        "UpscaleAVideoSegmentSampler",
        (1200, 440),
        (360, 320),
        model=Out(unet, 0),
        positive=Out(conditioning, 0),
        negative=Out(conditioning, 1),
        latent=Out(conditioning, 2),
        steps=30,
        guidance=6.0,
        seed=0,
        segment_length=8,
        overlap=2,
        propagation=Out(propagation, 0),
    )
    decode = g.add(
        "UpscaleAVideoVAEDecode",
        (1620, 120),
        (360, 200),
        samples=Out(sampler, 0),
        vae=Out(vae, 0),
        frames=frames,
        lr_guidance=1.0,
        frames_per_group=3,
        color_fix="adain",
    )
    made = g.add(
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
    g.note((-40, 790), (580, 270), NOTE_START)
    g.note((560, 790), (600, 270), NOTE_SETTINGS)
    return g


NOTE_START = """\
## Upscale a video 4x

1. **Your clip**: choose a video. Start with a second or two: cost grows with frames and pixels.
2. **Models**: see the README of the pack for where the weights come from and where they go. A red
   or empty name means that the file is not there yet.
3. Press **Run**. Sound and frame rate are kept.

Each loader also reads the files of the authors' release as they are
(`models/upscale_a_video/...`)."""
NOTE_SETTINGS = """\
## The settings that matter

- **noise_level** 20-60 stays close to the input; 120 is the default; 200 and more invents detail.
- **Text**: say what the clip shows, and keep *best quality, extremely detailed* at the end.
- **guidance** 4-6; higher is sharper and less calm.
- **Propagation steps**: a few late ones (*24,26,28* of 30, or *last 3*) against flicker. Leave
  empty for cuts and very fast motion.
- **color_fix**: *none* is the reference; *adain* keeps the input's colours."""


def main() -> None:
    """Ask a real ComfyUI for its node definitions, and write every workflow and twin."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with tempfile.TemporaryDirectory() as base:
        python, comfyui = environment_python(), comfyui_path(default_version())
        with ComfyServer(comfyui, python, Path(base), ROOT) as server:
            info = server.object_info()
    TWINS.mkdir(parents=True, exist_ok=True)
    for name, graph in {"upscale_video": upscale_video()}.items():
        for folder, form in ((WORKFLOWS, ui), (TWINS, api)):
            path = folder / f"{name}.json"
            path.write_text(json.dumps(form(graph, info), indent=1) + "\n")
            log.info("%s", path.relative_to(ROOT))


if __name__ == "__main__":
    main()
