"""Whole runs on a server while this process holds all but a few GiB of the GPU memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from clips import read_clip
from graphs import Graph, shortened
from torch import Tensor

from scripts.server.comfy_server import ComfyServer, PromptFailed
from scripts.workflows.presets import AUTHORS, with_preset

from .items import CheckFailedError, Item, NotPossibleError, Values
from .life import used
from .place import Place
from .served import check_size, large_clip, result_of

LEFT = (8, 12, 6, 16)
"""GiB free when a run begins, as on common GPUs, the most common first."""
FRAMES = 9
"""More than one group, and two segments."""
TIMEOUT = 600
GIB = 2**30
STEPPED_DOWN = "Memory ran out while"


def items(place: Place) -> Iterator[Item]:
    """Items; for each size of memory the released networks first, as they need more."""
    for left in (0,) if place.tiny else LEFT:
        room = f"{left} GiB left" if left else "no card to fill"
        for name, authors, estimate in (("released size", True, 9), ("included", False, 6)):
            yield Item(f"{name} weights, {room}", partial(run, place, left, authors), estimate)


def run(place: Place, left: int, authors: bool) -> Values:
    """Run the workflow; it must finish, with smaller settings if necessary."""
    if authors:
        place.weights.lay_authors()
    server, clip = place.server(), large_clip(place, FRAMES)
    server.free()
    used(server)  # waits until memory is stable
    graph = shortened("upscale_video", server)
    if authors:
        steps = graph.prompt[graph.id("UpscaleAVideoSettings")]["inputs"]["steps"]
        graph.prompt = with_preset(graph.prompt, AUTHORS)
        graph.set("UpscaleAVideoSettings", speed="custom", steps=steps, propagation_steps="last 1")
    graph.set("LoadVideo", file=server.upload(clip))
    before = server.log_text().count(STEPPED_DOWN)
    held = hold(place, left)
    try:
        result = finished(server, graph)
    finally:
        del held
    check_size(read_clip(clip).pixels, result)
    return {"steps down": server.log_text().count(STEPPED_DOWN) - before}


def finished(server: ComfyServer, graph: Graph) -> np.ndarray:
    """The frames of a run; CheckFailedError with the node's message if it fails."""
    try:
        return result_of(server, graph, TIMEOUT)
    except PromptFailed as error:
        details = error.details
        server.stats()  # it must still answer
        raise CheckFailedError(
            f"{details.get('node_type')}: {details.get('exception_type')}: "
            f"{str(details.get('exception_message')).strip()[:300]}"
        ) from error


def hold(place: Place, left: int) -> Tensor | None:
    """A tensor that leaves only ``left`` GiB of GPU memory free; None without a GPU."""
    if place.tiny:
        return None
    free, _ = torch.cuda.mem_get_info(place.device)
    if free < left * GIB:
        raise NotPossibleError(f"only {free / GIB:.1f} GiB of the card are free")
    return torch.empty(free - left * GIB, dtype=torch.uint8, device=place.device)
