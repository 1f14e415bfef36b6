"""The subgraph blueprint: the plain workflow as one node with its most important inputs.

ComfyUI lists the files in a pack's folder `subgraphs` as blueprints, by their names.
"""

from __future__ import annotations

import uuid
from typing import Any

from scripts.workflows import notes
from scripts.workflows.forms import BOUNDARY, Graph, Out, ui
from scripts.workflows.presets import INCLUDED
from scripts.workflows.stages import QUALITY, WIDE, Stages
from uav_core.frames.detail import FULL

NAME = "Upscale video 4x (Upscale-A-Video)"
CATEGORY = "Video Tools"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "upscale-a-video")
# Name, type and initial value of the inputs, in the order on the node.
INPUTS: tuple[tuple[str, str, Any], ...] = (
    ("frames", "IMAGE", None),
    ("prompt", "STRING", QUALITY),
    ("noise_level", "INT", INCLUDED["UpscaleAVideoConditioning"]["noise_level"]),
    ("steps", "INT", INCLUDED["UpscaleAVideoSegmentSampler"]["steps"]),
    ("guidance", "FLOAT", INCLUDED["UpscaleAVideoSegmentSampler"]["guidance"]),
    ("seed", "INT", 0),
    ("detail", "FLOAT", FULL),
)
OUTPUT = ("frames", "IMAGE")
OUTPUT_NODE = -20


def inside() -> tuple[Graph, Out]:
    """The graph inside the subgraph, and its output."""
    g = Stages()
    g.given = [kind for _, kind, _ in INPUTS]
    frames, prompt, level, steps, guidance, seed, dial = (
        Out(BOUNDARY, i) for i in range(len(INPUTS))
    )
    models = g.one_kind(340, 120)
    texts = g.texts(760, 120, models.clip, prompt)
    conditioning = g.conditioning(760, 500, frames, texts, noise_level=level, seed=seed)
    propagation = g.propagation(1200, 120, models.flow, frames)
    latent = g.sampler(
        1200,
        440,
        models.unet,
        conditioning,
        propagation=propagation,
        steps=steps,
        guidance=guidance,
        seed=seed,
    )
    images = g.decode(1620, 120, latent, models.vae, frames)
    images = g.put(
        "UpscaleAVideoDetail", (1620, 410), (WIDE, 80), upscaled=images, frames=frames, detail=dial
    )
    g.group("Models", (320, 40, 400, 230), "#8A8")
    g.group("Text and low-res conditioning", (740, 40, 420, 660), "#b58b2a")
    g.group("Sampling along the motion", (1180, 40, 400, 1020), "#a1309b")
    g.group("Decode", (1600, 40, 400, 470), "#88A")
    g.note((340, 790), (820, 270), notes.BLUEPRINT + notes.authors(settings=False, files=False))
    return g, images


def blueprint(info: dict[str, Any]) -> dict[str, Any]:
    """The blueprint file: a graph of one node, and the definition of the subgraph."""
    graph, result = inside()
    form = ui(graph, info)
    last = form["last_link_id"] + 1
    links = [*form["links"], [last, result.node, result.slot, OUTPUT_NODE, 0, OUTPUT[1]]]
    output = form["nodes"][result.node - 1]["outputs"][result.slot]
    output["links"] = [*(output["links"] or []), last]
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    definition = {
        "id": _id("definition"),
        "version": 1,
        "state": {
            "lastGroupId": len(graph.groups),
            "lastNodeId": form["last_node_id"],
            "lastLinkId": last,
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": NAME,
        "inputNode": {"id": BOUNDARY, "bounding": [120, 120, 140, 40 + 20 * len(INPUTS)]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [2060, 120, 120, 60]},
        "inputs": [
            {
                "id": _id(f"input {name}"),
                "name": name,
                "type": kind,
                "linkIds": [link[0] for link in links if link[1:3] == [BOUNDARY, slot]],
                "pos": [240, 140 + 20 * slot],
            }
            for slot, (name, kind, _) in enumerate(INPUTS)
        ],
        "outputs": [
            {
                "id": _id("output"),
                "name": OUTPUT[0],
                "type": OUTPUT[1],
                "linkIds": [last],
                "pos": [2080, 140],
            }
        ],
        "widgets": [],
        "nodes": form["nodes"],
        "groups": graph.groups,
        "links": [dict(zip(names, link, strict=True)) for link in links],
        "extra": {},
        "category": CATEGORY,
        "description": "Upscales the frames of a video to four times their size, steady over "
        "time, with the small weights that come with the pack.",
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [_instance()],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": [definition]},
        "extra": {},
    }


def _instance() -> dict[str, Any]:
    shown = [(name, kind, value) for name, kind, value in INPUTS if value is not None]
    return {
        "id": 1,
        "type": _id("definition"),
        "pos": [0, 0],
        "size": [400, 300],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {
                "name": name,
                "type": kind,
                **({} if value is None else {"widget": {"name": name}}),
                "link": None,
            }
            for name, kind, value in INPUTS
        ],
        "outputs": [{"name": OUTPUT[0], "type": OUTPUT[1], "links": None}],
        "properties": {"proxyWidgets": [["-1", name] for name, _, _ in shown]},
        "widgets_values": [value for _, _, value in shown],
        "title": NAME,
    }


def _id(what: str) -> str:
    """A fixed id for ``what``, so that the file does not change when written again."""
    return str(uuid.uuid5(NAMESPACE, what))
