"""Whole runs while another process, this one, holds all of the card but a few GiB."""

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
"""GiB that are free when the run begins; of cards that people have, the most common first."""
FRAMES = 9
"""One whole group and more, and two segments."""
TIMEOUT = 600
GIB = 2**30
STEPPED_DOWN = "Memory ran out while"


def items(place: Place) -> Iterator[Item]:
    """Those of the released size first: they take more."""
    for left in (0,) if place.tiny else LEFT:
        room = f"{left} GiB left" if left else "no card to fill"
        for name, authors, estimate in (("released size", True, 9), ("included", False, 6)):
            yield Item(f"{name} weights, {room}", partial(run, place, left, authors), estimate)


def run(place: Place, left: int, authors: bool) -> Values:
    """It must come to its end, with smaller settings if need be."""
    if authors:
        place.weights.lay_authors()
    server, clip = place.server(), large_clip(place, FRAMES)
    server.free()
    used(server)  # once it rests
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
    """The frames; CheckFailedError with the node's own words where there are none."""
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
    """A tensor that leaves so many GiB of the card free; None where there is no card."""
    if place.tiny:
        return None
    free, _ = torch.cuda.mem_get_info(place.device)
    if free < left * GIB:
        raise NotPossibleError(f"only {free / GIB:.1f} GiB of the card are free")
    return torch.empty(free - left * GIB, dtype=torch.uint8, device=place.device)
