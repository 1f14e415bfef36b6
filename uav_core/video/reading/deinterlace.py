"""Deinterlacing: makes whole pictures of pictures that are two fields, by FFmpeg's filters."""

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
"""How the pictures of a video are treated.

"auto": as the pictures show, else as the file says. "always", "top", "bottom": all are two fields,
in the order found, the upper or the lower lines first. "film": telecined film. "never": all are
whole.
"""

Order = Literal["", "top", "bottom"]
"""Which lines of a picture were taken first; "": as the picture is marked, else the upper."""

Pictures = Iterator[tuple[int, av.VideoFrame]]

_PARITY = {"": "auto", "top": "tff", "bottom": "bff"}


def check_deinterlace(choice: str) -> None:
    """Raise InputError for an unknown choice."""
    if choice not in get_args(Deinterlace):
        raise InputError(f"Deinterlacing '{choice}': expected one of {get_args(Deinterlace)}.")


@dataclass(frozen=True)
class Mending:
    """How the pictures of a file are deinterlaced."""

    kind: Literal["none", "marked", "all", "film"] = "none"
    """"marked": pictures marked as two fields are deinterlaced. "all": every picture is.
    "film": the pictures of telecined film are restored."""
    order: Order = ""

    def settings(self) -> dict[str, Any]:
        """What decides the frames, as plain values.

        The first version's words are used where they are enough, so that its jobs can go on.
        """
        if self.kind == "none":
            return {}
        if not self.order and self.kind != "film":
            return {"deinterlace": "auto" if self.kind == "marked" else "always"}
        return {"deinterlace": {"kind": self.kind, "order": self.order}}


AS_THEY_ARE = Mending()


def deinterlaced(pictures: Pictures, mending: Mending) -> Pictures:
    """The same number of pictures at the same times, with those of two fields made whole.

    Of two fields the first is kept; the lines of the second are made anew from those around them
    and from the pictures before and after. For film, each field is joined with the one of the same
    film picture.

    Args:
        pictures: (time, picture), in order.
        mending: of any kind but "none".
    """
    for _, alike in groupby(pictures, key=lambda each: shape_of(each[1])):
        graph, times = None, deque[int]()
        for time, picture in alike:
            graph = graph or _chain(picture, mending)
            times.append(time)
            graph.push(picture)
            yield from ((times.popleft(), made) for made in pulled(graph))
        if graph is not None:
            graph.push(None)  # flushes the graph
            yield from ((times.popleft(), made) for made in pulled(graph))


def shape_of(picture: av.VideoFrame) -> tuple[int, int, str]:
    """Width, height and format, which all pictures of one filter graph must share."""
    return picture.width, picture.height, picture.format.name


def input_of(graph: Graph, picture: av.VideoFrame) -> FilterContext:
    """Add the input for pictures like ``picture`` to a graph."""
    return graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=Fraction(1, 1000),
    )


def _chain(picture: av.VideoFrame, mending: Mending) -> Graph:
    """Filters for pictures like ``picture``; each returns one picture for each that it gets."""
    graph, parity = Graph(), _PARITY[mending.order]
    # Where a filter below takes another format, FFmpeg converts to it; of pictures with tags it
    # would also change the matrix and the range, which are read later, by the file's tags. The
    # names of some formats say full range themselves.
    tagged = "full" if picture.format.name.startswith("yuvj") else "unknown"
    untag = graph.add("setparams", f"colorspace=unknown:range={tagged}")
    links = [input_of(graph, picture), untag]
    if mending.kind == "film":
        # Pictures that are not film are still combed after this, and are deinterlaced below.
        links.append(graph.add("fieldmatch", f"order={parity}"))
    which = "all" if mending.kind == "all" else "interlaced"
    links.append(graph.add("bwdif", f"mode=send_frame:parity={parity}:deint={which}"))
    graph.link_nodes(*links, graph.add("buffersink")).configure()
    return graph


def pulled(source: Graph | FilterContext) -> Iterator[av.VideoFrame]:
    """The pictures that a graph, or one of its outputs, has ready: in order, some pictures late."""
    while True:
        try:
            made = source.pull()
        except (BlockingIOError, EOFError):
            return
        assert isinstance(made, av.VideoFrame)
        yield made
