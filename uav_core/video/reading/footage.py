"""A video file prepared for upscaling: its frames, their times, and how they are deinterlaced.

That depends on what the pictures are, whatever the file says: whole, two fields, or telecined film.
FFmpeg's idet looks at a few hundred pictures, spread over the file, and tells by their motion which
lines were taken first. Film is recognised by the rhythm in which its fields repeat.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import av
from av.filter import Graph, filters_available
from av.filter.context import FilterContext

from ...callbacks import ignore
from ...errors import InputError
from .deinterlace import (
    Deinterlace,
    Mending,
    Order,
    check_deinterlace,
    input_of,
    pulled,
    shape_of,
)
from .film import CYCLE, KEPT, film_times, luma, repeated_fields
from .probe import Path, VideoInfo, probe
from .reader import VideoReader
from .times import FrameTimes, frame_times

log = logging.getLogger(__name__)

_ROW, _PLACES = 31, 10  # pictures in a row; most places in the file
_ENOUGH = 5  # rows after which the search ends if all of them agree
_PATIENCE = 300  # most pictures read to reach a place
_TALLEST = 1152  # lines: taller video is never interlaced
_FEWEST = 5  # pictures of a row that idet must recognise
_CLEAR = 0.5  # share of these by which one order must outnumber the other
_RHYTHM = 0.6  # share of cycles with film's rhythm that makes a row film
_MOST = 0.75  # share of the rows that must agree
_RIGHT = 0.9  # share of the pictures whose mark must be right
_ORDER = {"": "", "top": ", upper lines first", "bottom": ", lower lines first"}

Kind = Literal["whole", "fields", "film"]


@dataclass(frozen=True)
class Finding:
    """What the pictures of a file are, by their content."""

    kind: Kind | None = None
    """None: not sure enough to act upon."""
    order: Order = ""
    """The order of fields and film; "" for whole pictures."""
    marked: bool = False
    """Whether pictures of two fields are marked so."""
    in_order: bool = False
    """Whether the marked order is right; without marks, whether FFmpeg's default is."""


@dataclass(frozen=True)
class _Row:
    """What some pictures in a row are."""

    kind: Literal["whole", "fields", "film", "combed"]
    """"combed": fields or film, and not clear which."""
    order: Order
    marked: int
    in_order: int
    count: int


@dataclass(frozen=True)
class Footage:
    """An examined file. Frames are those after deinterlacing: of telecined film four of five."""

    path: Path
    info: VideoInfo
    times: FrameTimes
    finding: Finding
    mending: Mending

    @classmethod
    def open(
        cls,
        path: Path,
        deinterlace: Deinterlace = "auto",
        *,
        info: VideoInfo | None = None,
        check_cancelled: Callable[[], None] = ignore,
    ) -> Footage:
        """Read the file's packets, and examine some pictures.

        Args:
            path: the video.
            deinterlace: how its pictures are treated.
            info: the result of ``probe(path)``, if known.
            check_cancelled: called now and then; may raise.

        Raises:
            UnreadableVideoError: as ``probe`` does.
            InputError: an unknown ``deinterlace``, or "film" without the filter for it.
        """
        check_deinterlace(deinterlace)
        if deinterlace == "film" and "fieldmatch" not in filters_available:
            raise InputError(
                "This build of PyAV lacks the filter 'fieldmatch', which restores telecined film: "
                "install PyAV from PyPI (pip install av), or choose 'always'."
            )
        info = info or probe(path)
        times = frame_times(path, check_cancelled=check_cancelled)
        finding = Finding()
        if deinterlace in ("auto", "always", "film"):
            finding = find_fields(path, info, times, check_cancelled=check_cancelled)
        mending = mending_for(deinterlace, info.interlaced, finding)
        if mending.kind == "film":
            times = film_times(times)
            info = replace(info, rate=info.rate * KEPT / CYCLE, time_base=times.time_base)
        return cls(path, info, times, finding, mending)

    def notes(self) -> list[str]:
        """Notes for the user on what was found and how it is treated."""
        kind, order = self.mending.kind, _ORDER[self.mending.order]
        if kind == "film":
            rate, less = float(self.info.rate), " (in 8 bits)" * (self.info.bit_depth > 8)
            return [
                f"The video is telecined film{order}: the four original frames of every five were "
                f"restored{less}, {rate:.5g} per second."
            ]
        if kind == "none":
            wrong = self.info.interlaced and self.finding.kind == "whole"
            note = "The video is marked as interlaced, but its frames are progressive: not changed."
            return [note] * wrong
        if kind == "all" and self.finding.kind == "fields":
            wrong = self.finding.marked or self.info.interlaced
            order += f", but its marks are {'wrong' if wrong else 'missing'}"
        note = f"The video is interlaced{order}: every two fields were deinterlaced into one frame."
        return [note]

    def reader(self, frames: range, *, check_cancelled: Callable[[], None] = ignore) -> VideoReader:
        """A reader of some of the frames."""
        return VideoReader(
            self.path,
            frames.start,
            frames.stop,
            times=self.times,
            info=self.info,
            check_cancelled=check_cancelled,
            mending=self.mending,
        )


def find_fields(
    path: Path, info: VideoInfo, times: FrameTimes, *, check_cancelled: Callable[[], None] = ignore
) -> Finding:
    """Examine pictures from all over the file, which takes some seconds at most."""
    if info.coded_size[1] > _TALLEST:
        return Finding()
    if not {"idet", "metadata", "select", "split"} <= filters_available:
        log.warning(
            "This build of PyAV lacks the filters that detect interlaced video (idet): only the "
            "flags in the file are used."
        )
        return Finding()
    rows: list[_Row] = []
    for place in _places(times):
        reader = VideoReader(
            path, place.start, times=times, info=info, check_cancelled=check_cancelled
        )
        pictures = _of(reader, place)
        while row := list(islice(pictures, _ROW)):
            rows += _look(row)
        if len(rows) >= _ENOUGH and len({(row.kind, row.order) for row in rows}) == 1:
            break
    return _verdict(rows)


def _places(times: FrameTimes) -> list[range]:
    """The frames to examine, from keyframes on, which are quick to reach; a middle place first."""
    starts = [entry.frame for entry in times.entries] or [0]
    if len(starts) > _PLACES:
        starts = [starts[(2 * i + 1) * len(starts) // (2 * _PLACES)] for i in range(_PLACES)]
    ends = [*starts[1:], len(times)]
    length = _ROW * _PLACES // len(starts)
    places = [range(a, min(a + length, b)) for a, b in zip(starts, ends, strict=True) if a < b]
    return places[1::2] + places[::2]


def _of(reader: VideoReader, place: range) -> Iterator[av.VideoFrame]:
    """The pictures of a place; none if it is not reached within _PATIENCE pictures."""
    for frame, picture in islice(reader.pictures(), _PATIENCE + len(place)):
        if frame >= place.stop:
            break
        if frame >= place.start:
            yield picture


def _look(pictures: list[av.VideoFrame]) -> list[_Row]:
    """What some pictures in a row are, as one row; empty if they do not tell."""
    top, bottom, whole, marked_top, marked_bottom = _sorted(pictures)
    combed, told = top | bottom, len(top) + len(bottom) + len(whole)
    clear = len(top) - len(bottom)
    if told < _FEWEST:
        return []
    if abs(clear) < _CLEAR * told:
        return [_Row("whole", "", 0, 0, 0)] if len(whole) > _CLEAR * told else []
    order: Order = "top" if clear > 0 else "bottom"
    shares = repeated_fields(map(luma, pictures))
    kind = "combed" if shares is None else "film" if shares >= _RHYTHM else "fields"
    wrong = marked_bottom if order == "top" else combed - marked_bottom
    return [
        _Row(
            kind,
            order,
            marked=len(combed & (marked_top | marked_bottom)),
            in_order=len(combed - wrong),
            count=len(combed),
        )
    ]


def _sorted(pictures: list[av.VideoFrame]) -> list[set[int]]:
    """Five sets of numbers of pictures, sorted by content, then by mark.

    By content: upper lines first, lower lines first, whole. By mark: upper first, lower first. The
    filters have five outputs, as PyAV 14 gives idet's findings in no other way.
    """
    graph, first = Graph(), pictures[0]
    source = input_of(graph, first)
    marks, kinds, idet = graph.add("split", "3"), graph.add("split", "3"), graph.add("idet")
    source.link_to(marks)
    marks.link_to(idet)
    idet.link_to(kinds)
    ends: list[FilterContext] = []
    for i, kind in enumerate(("tff", "bff", "progressive")):
        key = f"mode=select:key=lavfi.idet.single.current_frame:value={kind}"
        ends.append(_end(graph, kinds, i, "metadata", key))
    for i, mark in enumerate(("TOPFIRST", "BOTTOMFIRST"), start=1):
        ends.append(_end(graph, marks, i, "select", f"eq(interlace_type,{mark})"))
    graph.configure()
    found: list[set[int]] = [set() for _ in ends]
    for number, picture in enumerate([*pictures, None]):
        if picture is not None:
            if shape_of(picture) != shape_of(first):
                continue
            picture.pts = number
        source.push(picture)
        for numbers, end in zip(found, ends, strict=True):
            numbers.update(made.pts for made in pulled(end) if made.pts is not None)
    return found


def _end(graph: Graph, split: FilterContext, i: int, name: str, options: str) -> FilterContext:
    chosen, sink = graph.add(name, options), graph.add("buffersink")
    split.link_to(chosen, i)
    chosen.link_to(sink)
    return sink


def _verdict(rows: list[_Row]) -> Finding:
    kinds = Counter(row.kind for row in rows)
    combed = [row for row in rows if row.kind != "whole"]
    if not rows or len(combed) < _MOST * len(rows):
        return Finding("whole" if rows and kinds["whole"] >= _MOST * len(rows) else None)
    top = sum(row.order == "top" for row in combed)
    order: Order = "top" if 2 * top >= len(combed) else "bottom"
    if max(top, len(combed) - top) < _MOST * len(combed):
        return Finding()
    film = kinds["film"] and kinds["film"] >= _MOST * (kinds["film"] + kinds["fields"])
    count = sum(row.count for row in combed)
    return Finding(
        "film" if film else "fields",
        order,
        marked=sum(row.marked for row in combed) >= _RIGHT * count,
        in_order=sum(row.in_order for row in combed) >= _RIGHT * count,
    )


def mending_for(choice: Deinterlace, marked: bool, finding: Finding) -> Mending:
    """How the pictures of a file are to be treated.

    Args:
        choice: the user's choice.
        marked: whether the file says that it is interlaced.
        finding: what its pictures are.
    """
    if choice == "never":
        return Mending()
    if choice in ("top", "bottom"):
        return Mending("all", choice)
    order = "" if finding.in_order else finding.order
    if choice == "always":
        return Mending("all", order)
    film = finding.kind == "film" and "fieldmatch" in filters_available
    if choice == "film" or film:
        return Mending("film", finding.order)
    if finding.kind in ("fields", "film"):
        right = finding.marked and finding.in_order
        return Mending("marked") if right else Mending("all", order)
    return Mending("marked") if marked and finding.kind != "whole" else Mending()
