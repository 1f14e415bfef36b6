"""Interlaced video: whole pictures made of pictures that are two fields, by FFmpeg's bwdif."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, get_args

import av
from av.filter import Graph

from ...errors import InputError

Deinterlace = Literal["auto", "always", "never"]
"""Pictures that say they are fields; all of them, for a file that lost the mark; none."""

Pictures = Iterator[tuple[int, av.VideoFrame]]


def check_deinterlace(choice: str) -> None:
    """Raise InputError for what is no choice."""
    if choice not in get_args(Deinterlace):
        raise InputError(f"Deinterlacing '{choice}': expected one of {get_args(Deinterlace)}.")


def deinterlaces(choice: Deinterlace, marked: bool) -> bool:
    """Whether anything is done to a file; ``marked``: it says that it is interlaced."""
    return choice == "always" or (choice == "auto" and marked)


def deinterlaced(pictures: Pictures, every: bool) -> Pictures:
    """The same number of pictures at the same times, those of two fields made whole.

    One picture for two fields: the first stays, and the lines of the second are made anew from
    those around them and from the pictures before and after, which are therefore read as well.

    Args:
        pictures: in order; (time, picture).
        every: whether all are two fields, whatever they say of themselves.
    """
    graph, shape, times = None, None, deque[int]()
    for time, picture in pictures:
        if graph is None or shape != _shape(picture):
            if graph is not None:
                yield from _rest(graph, times)
            graph, shape = _graph(picture, every), _shape(picture)
        times.append(time)
        graph.push(picture)
        yield from _ready(graph, times)
    if graph is not None:
        yield from _rest(graph, times)


def _shape(picture: av.VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


def _graph(picture: av.VideoFrame, every: bool) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=Fraction(1, 1000),
    )
    which = "all" if every else "interlaced"
    filters = graph.add("bwdif", f"mode=send_frame:parity=auto:deint={which}")
    sink = graph.add("buffersink")
    source.link_to(filters)
    filters.link_to(sink)
    graph.configure()
    return graph


def _ready(graph: Graph, times: deque[int]) -> Pictures:
    """What the filter can give so far. It gives one for one, in order, a picture late."""
    while True:
        try:
            made = graph.pull()
        except (BlockingIOError, EOFError):
            return
        assert isinstance(made, av.VideoFrame)
        yield times.popleft(), made


def _rest(graph: Graph, times: deque[int]) -> Pictures:
    """What it has kept, now that nothing follows."""
    graph.push(None)
    yield from _ready(graph, times)
