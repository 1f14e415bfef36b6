"""The shipped workflow as a server runs it, cut short for tests."""

from __future__ import annotations

import json
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from scripts.workflows.presets import AUTHORS, SETTINGS, with_preset

API = Path(__file__).parent / "api"
STEPS = 2


@cache
def _twin(name: str) -> dict[str, Any]:
    return json.loads((API / f"{name}.json").read_text())


class Graph:
    """An API graph whose nodes are found by what they are."""

    def __init__(self, name: str, server: Any) -> None:
        self.prompt = deepcopy(_twin(name))
        known = server.object_info()
        for node in self.prompt.values():
            given = known[node["class_type"]]["input"]
            names = {**given.get("required", {}), **given.get("optional", {})}
            # An older ComfyUI lacks some inputs of its own nodes; its page leaves them out too.
            node["inputs"] = {k: v for k, v in node["inputs"].items() if k in names}

    def id(self, kind: str) -> str:
        (found,) = (key for key, node in self.prompt.items() if node["class_type"] == kind)
        return found

    def ids(self, kind: str) -> list[str]:
        return [key for key, node in self.prompt.items() if node["class_type"] == kind]

    def set_all(self, kind: str, **inputs: Any) -> Graph:
        for key in self.ids(kind):
            self.prompt[key]["inputs"].update(inputs)
        return self

    def set(self, kind: str, **inputs: Any) -> Graph:
        self.prompt[self.id(kind)]["inputs"].update(inputs)
        return self

    def add(self, kind: str, **inputs: Any) -> list[Any]:
        """Add a node; its first output."""
        key = str(max(map(int, self.prompt)) + 1)
        self.prompt[key] = {"class_type": kind, "inputs": inputs}
        return [key, 0]


def upscale(server: Any, clip: Path) -> Graph:
    """The shipped workflow on ``clip``, with the included weights and two steps."""
    return _shortened(Graph("upscale_video", server), server, clip)


def long_video(server: Any, clip: Path) -> Graph:
    """The shipped workflow for long videos on ``clip``: two steps, parts of three frames."""
    graph = Graph("long_video", server)
    graph.set("LoadVideo", file=server.upload(clip))
    _two_steps(graph)
    return graph.set("UpscaleAVideoLongVideoOptions", part_length=3)


def upscale_with_files(server: Any, clip: Path) -> Graph:
    """The same with the four files that the authors' weights are converted to, here generated."""
    graph = Graph("upscale_video", server)
    graph.prompt = with_preset(graph.prompt, AUTHORS)
    return _shortened(graph, server, clip)


def shortened(name: str, server: Any) -> Graph:
    """A shipped workflow with two steps and little motion; its input is yet to be set."""
    graph = Graph(name, server)
    if graph.ids(SETTINGS):
        _two_steps(graph)
    else:
        graph.set_all("UpscaleAVideoSegmentSampler", steps=STEPS)
        graph.set_all("UpscaleAVideoPropagation", steps="last 1")
    return graph.set_all("UpscaleAVideoPropagation", flow_iterations=2)


def _two_steps(graph: Graph) -> Graph:
    return graph.set(SETTINGS, speed="custom", steps=STEPS, propagation_steps="last 1")


def _shortened(graph: Graph, server: Any, clip: Path) -> Graph:
    graph.set("LoadVideo", file=server.upload(clip))
    graph.set("UpscaleAVideoVAEDecode", frames_per_group=3)
    return _two_steps(graph).set("UpscaleAVideoPropagation", flow_iterations=2)
