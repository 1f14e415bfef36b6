"""What all node definitions share: category, sockets, and tolerance for older ComfyUI."""

from __future__ import annotations

import inspect
from typing import Any

from comfy_api.latest import io

# Words of ComfyUI's own categories, which its page translates; the nodes of the basic graph lie
# in the first, the others in folders of it.
CATEGORY = "video/upscaling/Upscale-A-Video"
LOADERS, SAMPLING = f"{CATEGORY}/loaders", f"{CATEGORY}/sampling"
LONG_VIDEO, LOOK = f"{CATEGORY}/long video", f"{CATEGORY}/look and compare"
SEARCH = ["upscale a video", "uav"]
# What somebody types who looks for an upscaler, not for this one. Only the main node has them:
# the search puts the shorter name first among the nodes that have the same word.
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

# Folded away in the frontend, where the core knows how to.
ADVANCED: dict[str, Any] = (
    {"advanced": True} if "advanced" in inspect.signature(io.Int.Input).parameters else {}
)

# ComfyUI's own socket for a flow *model*; computed propagation has one of ours.
OpticalFlow = io.Custom("OPTICAL_FLOW")
PropagationSocket = io.Custom("UAV_PROPAGATION")


def schema(
    node_id: str, display_name: str, aliases: tuple[str, ...] = (), **kwargs: Any
) -> io.Schema:
    """An io.Schema without the fields that this version of ComfyUI does not know."""
    kwargs.setdefault("category", CATEGORY)
    kwargs["search_aliases"] = [*aliases, *SEARCH]
    known = inspect.signature(io.Schema).parameters
    return io.Schema(
        node_id=node_id,
        display_name=display_name,
        **{name: value for name, value in kwargs.items() if name in known},
    )


def set_up(node: type[io.ComfyNode], values: dict[str, Any]) -> dict[str, Any]:
    """All widgets of a node: those of ``values`` that it has, and its own defaults."""
    inputs: dict[str, Any] = {entry.id: entry for entry in node.define_schema().inputs or ()}
    own = {
        name: entry.default
        for name, entry in inputs.items()
        if getattr(entry, "default", None) is not None
    }
    return {**own, **{name: value for name, value in values.items() if name in inputs}}


def for_page(made: io.Combo.Input, **extra: Any) -> io.Combo.Input:
    """A choice with something added to the definition that the page gets (web/js)."""
    # An argument in later versions only; the attribute is in all.
    made.extra_dict = {**made.extra_dict, **extra}
    return made
