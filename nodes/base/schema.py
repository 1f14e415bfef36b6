"""What all node definitions share: category, sockets, and tolerance for older ComfyUI."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io

# "video/upscaling" are ComfyUI's own words, which its page translates. The nodes of the basic
# graph are in CATEGORY, the others in its sub-categories.
CATEGORY = "video/upscaling/Upscale-A-Video"
LOADERS, SAMPLING = f"{CATEGORY}/loaders", f"{CATEGORY}/sampling"
LONG_VIDEO, LOOK = f"{CATEGORY}/long video", f"{CATEGORY}/look and compare"
SEARCH = ["upscale a video", "uav"]
# Search words for any upscaler. Only the main node has them: among nodes with the same word the
# search puts the one with the shorter name first.
MAIN_SEARCH = (
    "vsr",
    "denoise",
    "super resolution",
    "video super resolution",
    "seedvr",
    "flicker",
    "interlaced",
    "long video",
    "restore",
    "enhance",
    "video upscale 4x",
)

# Hides an input under 'advanced', in ComfyUI versions that support it.
ADVANCED: dict[str, Any] = (
    {"advanced": True} if "advanced" in inspect.signature(io.Int.Input).parameters else {}
)

# ComfyUI's socket for a flow *model*, and our own for a propagation plan.
OpticalFlow = io.Custom("OPTICAL_FLOW")
PropagationSocket = io.Custom("UAV_PROPAGATION")


def schema(
    node_id: str, display_name: str, aliases: tuple[str, ...] = (), **kwargs: Any
) -> io.Schema:
    """An io.Schema without the fields that this ComfyUI version does not know."""
    kwargs.setdefault("category", CATEGORY)
    kwargs["search_aliases"] = [*aliases, *SEARCH]
    known = inspect.signature(io.Schema).parameters
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        **{name: value for name, value in kwargs.items() if name in known},
    )


def set_up(node: type[io.ComfyNode], values: dict[str, Any]) -> dict[str, Any]:
    """All widget values of a node: its defaults, replaced by those of ``values`` that it has."""
    inputs: dict[str, Any] = {entry.id: entry for entry in node.define_schema().inputs or ()}
    own = {
        name: entry.default
        for name, entry in inputs.items()
        if getattr(entry, "default", None) is not None
    }
    return {**own, **{name: value for name, value in values.items() if name in inputs}}


def for_page(made: io.Combo.Input, **extra: Any) -> io.Combo.Input:
    """``made`` with ``extra`` added to the definition that the page gets (web/js)."""
    # Only later ComfyUI versions have the argument; all have the attribute.
    made.extra_dict = {**made.extra_dict, **extra}
    return made
