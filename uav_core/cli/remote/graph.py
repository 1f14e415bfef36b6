"""Turns the command's options into the graph that a ComfyUI server runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...flow.builtin import BUILTIN_FLOW
from ...frames.detail import FULL
from ...frames.output_size import WHEN
from ...longvideo.params import LongVideoParams
from ...sampling.presets import FLAWS, QUALITY
from ...video import EncodeParams
from ...weights import included
from . import MissingPackError, ServerJobError

Graph = dict[str, dict[str, Any]]

UPSCALE = "upscale"
"""The id of the node that makes the video."""
_VIDEO = "video"


@dataclass(frozen=True)
class WeightNames:
    """Entries of the server's loaders; the included weights by default."""

    unet: str = included.UNET + included.MARK
    vae: str = included.VAE_VIDEO + included.MARK
    texts: str = included.TEXT + included.MARK
    flow: str = BUILTIN_FLOW


def long_video_graph(params: LongVideoParams, encode: EncodeParams, weights: WeightNames) -> Graph:
    """The graph in API form, without the video and the result's name: see ``with_files``."""
    own = "cuts tile tile_overlap segment_length overlap frames_per_group lr_guidance part_length"
    options: dict[str, Any] = {name: getattr(params, name) for name in own.split()} | {
        "codec": encode.codec,
        "container": encode.container,
        "crf": -1 if encode.crf is None else encode.crf,
        "pixel_format": encode.pixel_format,
        "cut_detection": params.scenes.method,
        "propagation_strength": params.propagation.strength,
    }
    own = "noise_level steps guidance propagation_steps seed"
    upscale: dict[str, Any] = {name: getattr(params, name) for name in own.split()} | {
        "model": ["unet", 0],
        "vae": ["vae", 0],
        "video": [_VIDEO, 0],
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "flow_model": ["flow", 0],
        "options": ["options", 0],
        "color_fix": params.color,
        "filename_prefix": "",
    }
    # Newer inputs are added only if they are used: an older pack on the server does not know them,
    # and a result fetched by an older version is still recognised.
    if not params.guided.is_whole:
        options |= {"guidance_start": params.guided.start, "guidance_end": params.guided.end}
    if params.deinterlace != "auto":
        options["deinterlace"] = params.deinterlace
    if params.self_ensemble:
        options["self_ensemble"] = True
    if params.detail != FULL:
        upscale["detail"] = params.detail
    size = params.size
    if size != LongVideoParams().size:
        own = "factor short_side width height aspect"
        options |= {name: getattr(size, name) for name in own.split()}
        options |= {"output_size": size.target, "resize": WHEN[params.resize]}
    return {
        _VIDEO: _node("LoadVideo", file=""),
        "unet": _node("UpscaleAVideoUNetLoader", unet_name=weights.unet, weight_dtype="default"),
        "vae": _node("UpscaleAVideoVAELoader", vae_name=weights.vae),
        "flow": _node("UpscaleAVideoFlowLoader", flow_name=weights.flow),
        "texts": _node("UpscaleAVideoTextEncoderLoader", text_encoder_name=weights.texts),
        "positive": _node("CLIPTextEncode", clip=["texts", 0], text=QUALITY),
        "negative": _node("CLIPTextEncode", clip=["texts", 0], text=FLAWS),
        "options": _node("UpscaleAVideoLongVideoOptions", **options),
        UPSCALE: _node("UpscaleAVideoLongVideo", **upscale),
    }


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def with_files(graph: Graph, video: str, prefix: str) -> Graph:
    """The graph with a file of the server's input folder and the start of the result's name."""
    files = {_VIDEO: {"file": video}, UPSCALE: {"filename_prefix": prefix}}
    return {
        key: {**node, "inputs": {**node["inputs"], **files.get(key, {})}}
        for key, node in graph.items()
    }


def result_name(graph: Graph, stem: str) -> str:
    """The start of the result's name on the server, for a video named ``stem``."""
    is_4x = "output_size" not in graph["options"]["inputs"]
    return f"{stem}_4x" if is_4x else f"{stem}_upscaled"


def node_kinds(graph: Graph) -> tuple[str, ...]:
    """The node classes that the graph needs, each once."""
    return tuple(dict.fromkeys(node["class_type"] for node in graph.values()))


def check_graph(graph: Graph, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Check the graph against the server's description of its nodes (``/object_info``).

    Raises:
        MissingPackError: the server lacks a node, or the node lacks an input.
        ServerJobError: a name is not in the server's list.
    """
    missing = [kind for kind in node_kinds(graph) if kind not in known]
    if missing:
        raise MissingPackError(
            f"The server has no node {', '.join(missing)}: expected a ComfyUI (0.3.75 or newer) "
            "with the pack Upscale-A-Video. Install the pack into its custom_nodes, restart it, "
            "and look into its log if the pack does not load."
        )
    for node in graph.values():
        kind, described = node["class_type"], known[node["class_type"]]["input"]
        inputs = {**described.get("required", {}), **described.get("optional", {})}
        for name, value in node["inputs"].items():
            if name not in inputs:
                raise MissingPackError(
                    f"The server's {kind} has no input '{name}': the server has a different "
                    "version of the pack. Update the pack on both machines, and restart the "
                    "server."
                )
            choices = _choices(inputs[name])
            # LoadVideo lists only the top of the input folder, but takes files below it too.
            if kind != "LoadVideo" and choices is not None and value not in choices:
                raise ServerJobError(
                    f"'{value}' is not in the server's list '{name}' of {kind}. Expected one of: "
                    f"{', '.join(map(str, choices))}. New files on the server appear in this list "
                    "automatically."
                )


def _choices(described: Any) -> list[Any] | None:
    """The entries of a list input, in either of ComfyUI's forms; None for any other input."""
    kind = described[0]
    if isinstance(kind, list):
        return kind
    if kind == "COMBO" and len(described) > 1:
        return described[1].get("options")
    return None
