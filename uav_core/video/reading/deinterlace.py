"""Pictures that are two fields: whole pictures made of them, by FFmpeg's filters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from typing import Any, Literal, get_args

import av
from av.filter import Graph
from av.filter.context import FilterContext

from ...errors import InputError

Deinterlace = Literal["auto", "always", "never", "top", "bottom", "film"]
"""What the pictures of a video are taken for.

"auto": what they show, else what the file says. "always", "top", "bottom": all are two fields, in
the order found, the upper or the lower lines first. "film": telecined film. "never": all are whole.
"""

Order = Literal["", "top", "bottom"]
"""Which lines of a picture were taken first; "": those that it names itself, else the upper."""

Pictures = Iterator[tuple[int, av.VideoFrame]]

_PARITY = {"": "auto", "top": "tff", "bottom": "bff"}


def check_deinterlace(choice: str) -> None:
    """Raise InputError for what is no choice."""
    if choice not in get_args(Deinterlace):
        raise InputError(f"Deinterlacing '{choice}': expected one of {get_args(Deinterlace)}.")


@dataclass(frozen=True)
class Mending:
    """What is done to the pictures of a file."""

    kind: Literal["none", "marked", "all", "film"] = "none"
    """"marked": pictures that are marked as two fields are made whole. "all": every picture is.
    "film": telecined film is brought back."""
    order: Order = ""

    def settings(self) -> dict[str, Any]:
        """What decides the frames, as plain values.

        Where the first version's words say it, it is in these: jobs begun with that version go on.
        """
        if self.kind == "none":
            return {}
        if not self.order and self.kind != "film":
            return {"deinterlace": "auto" if self.kind == "marked" else "always"}
        return {"deinterlace": {"kind": self.kind, "order": self.order}}


AS_THEY_ARE = Mending()


def deinterlaced(pictures: Pictures, mending: Mending) -> Pictures:
    """As many pictures at the same times, with those of two fields made whole.

    Of two fields the first stays; the lines of the second are made anew from those around them and
    from the pictures before and after. Of film each field is put beside the one that was taken
    from the same picture.

    Args:
        pictures: in order; (time, picture).
        mending: any but "none".
    """
    for _, alike in groupby(pictures, key=lambda each: shape_of(each[1])):
        graph, times = None, deque[int]()
        for time, picture in alike:
            graph = graph or _chain(picture, mending)
            times.append(time)
            graph.push(picture)
            yield from ((times.popleft(), made) for made in pulled(graph))
        if graph is not None:
            graph.push(None)  # and now what it has kept
            yield from ((times.popleft(), made) for made in pulled(graph))


def shape_of(picture: av.VideoFrame) -> tuple[int, int, str]:
    """What the pictures of one filter graph must have in common."""
    return picture.width, picture.height, picture.format.name


def input_of(graph: Graph, picture: av.VideoFrame) -> FilterContext:
    """The input of a graph for pictures like this one."""
    return graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=Fraction(1, 1000),
    )


def _chain(picture: av.VideoFrame, mending: Mending) -> Graph:
    """Filters, each of which gives one picture for one, for pictures like this one."""
    graph, parity = Graph(), _PARITY[mending.order]
    links = [input_of(graph, picture)]
    if mending.kind == "film":
        # What is no film after all is still combed then, and made whole.
        links.append(graph.add("fieldmatch", f"order={parity}"))
    which = "all" if mending.kind == "all" else "interlaced"
    links.append(graph.add("bwdif", f"mode=send_frame:parity={parity}:deint={which}"))
    graph.link_nodes(*links, graph.add("buffersink")).configure()
    return graph


def pulled(source: Graph | FilterContext) -> Iterator[av.VideoFrame]:
    """What a graph, or one of its outputs, can give so far: in order, some pictures late."""
    while True:
        try:
            made = source.pull()
        except (BlockingIOError, EOFError):
            return
        assert isinstance(made, av.VideoFrame)
        yield made
