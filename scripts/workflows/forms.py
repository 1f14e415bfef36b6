"""Converts a workflow to ComfyUI's two formats: that of the page and that of the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BOUNDARY = -10
"""Id of the node whose outputs are the inputs of the subgraph."""


@dataclass(frozen=True)
class Out:
    """One output of a node, or of BOUNDARY, from which links start."""

    node: int
    slot: int
    shown: Any = None
    """Its initial value; the page shows it greyed in linked inputs."""


@dataclass
class Node:
    """One node; ``inputs`` maps names to values, or to the linked Out."""

    type: str
    pos: tuple[int, int]
    size: tuple[int, int]
    inputs: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    color: str = ""
    folded: bool = False
    """Whether the node is collapsed to its title."""


@dataclass
class Graph:
    """A workflow under construction; nodes are numbered from 1 in the order of adding."""

    nodes: list[Node] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    given: list[str] = field(default_factory=list)
    """The types of a subgraph's inputs."""

    def add(self, type: str, pos: tuple[int, int], size: tuple[int, int], /, **options: Any) -> int:
        """Add a node and return its id; ``options`` that Node does not have are inputs."""
        extra = {key: options.pop(key) for key in ("title", "color", "folded") if key in options}
        self.nodes.append(Node(type, pos, size, options, **extra))
        return len(self.nodes)

    def group(self, title: str, box: tuple[int, int, int, int], color: str) -> None:
        """Add a coloured frame around nodes; ``box`` is x, y, width, height."""
        number = len(self.groups) + 1
        self.groups.append(
            {"id": number, "title": title, "bounding": list(box), "color": color, "font_size": 24}
        )

    def note(self, pos: tuple[int, int], size: tuple[int, int], text: str) -> None:
        """Add a note in Markdown, which exists only in the frontend."""
        self.add("MarkdownNote", pos, size, text=text, color="#432")


def api(graph: Graph, info: dict[str, Any]) -> dict[str, Any]:
    """The graph in the API format, which a server runs."""
    prompt = {}
    for number, node in enumerate(graph.nodes, start=1):
        if node.type == "MarkdownNote":
            continue
        specs = _input_specs(info[node.type])
        defaults = {
            name: _options(spec).get("default") for name, spec in specs.items() if _is_widget(spec)
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
    """The graph in the format of the frontend's workflow files."""
    links: list[list[Any]] = []
    nodes = []
    for number, node in enumerate(graph.nodes, start=1):
        note = node.type == "MarkdownNote"
        specs = {} if note else _input_specs(info[node.type])
        sockets, widgets = [], [node.inputs["text"]] if note else []
        for name, spec in specs.items():
            value = node.inputs.get(name)
            is_widget = _is_widget(spec)
            if name not in node.inputs and is_widget and _options(spec).get("default") is None:
                continue
            if not is_widget or isinstance(value, Out):
                socket = {"name": name, "type": _type(spec), "link": None}
                if is_widget:
                    socket["widget"] = {"name": name}
                if isinstance(value, Out):
                    source = _source(graph, value, info)
                    link = [len(links) + 1, value.node, value.slot, number, len(sockets), source]
                    links.append(link)
                    socket["link"] = link[0]
                sockets.append(socket)
            if is_widget:
                widgets += _widget_values(name, spec, value)
        nodes.append(_ui_node(number, node, sockets, widgets, info))
    for link in links:
        if link[1] == BOUNDARY:
            continue
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


def _source(graph: Graph, out: Out, info: dict[str, Any]) -> str:
    """The type of the output ``out``."""
    if out.node == BOUNDARY:
        return graph.given[out.slot]
    return info[graph.nodes[out.node - 1].type]["output"][out.slot]


def _ui_node(
    number: int, node: Node, sockets: list[Any], widgets: list[Any], info: dict[str, Any]
) -> dict[str, Any]:
    result: dict[str, Any] = {
        "id": number,
        "type": node.type,
        "pos": list(node.pos),
        "size": list(node.size),
        "flags": {"collapsed": True} if node.folded else {},
        "order": number - 1,
        "mode": 0,
        "inputs": sockets,
        "outputs": [],
        "properties": {},
        "widgets_values": widgets,
    }
    if node.type != "MarkdownNote":
        definition = info[node.type]
        result["properties"]["Node name for S&R"] = node.type
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


def _options(spec: list[Any]) -> dict[str, Any]:
    return spec[1] if len(spec) > 1 else {}


def _is_widget(spec: list[Any]) -> bool:
    kinds = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
    return _type(spec) in kinds and not _options(spec).get("forceInput")


def _widget_values(name: str, spec: list[Any], value: Any) -> list[Any]:
    options = _options(spec)
    if isinstance(value, Out):
        value = value.shown
    if value is None:
        value = options.get("default")
    values = [value]
    if options.get("control_after_generate"):
        values.append("fixed")
    if options.get("video_upload") or options.get("image_upload"):
        values.append("image")
    return values
