"""A video file as it is worked on: its frames, their times, and what is done to its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...callbacks import ignore
from ...errors import InputError
from .deinterlace import Deinterlace, Mending, can_bring_film_back, check_deinterlace
from .film import CYCLE, KEPT, FilmTimes
from .finding import Finding, find_fields, mending_for
from .probe import Path, VideoInfo, probe
from .reader import VideoReader
from .times import FrameTimes, frame_times

_ORDER = {"": "", "top": ", the upper lines first", "bottom": ", the lower lines first"}


@dataclass(frozen=True)
class Footage:
    """A file that was looked at. Frames are those after mending: of telecined film four of five."""

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
        """Read the file's packets, and look at some pictures.

        Args:
            path: the video.
            deinterlace: what its pictures are taken for.
            info: what ``probe(path)`` gave, if it is known.
            check_cancelled: called now and then; may raise.

        Raises:
            UnreadableVideoError: as ``probe`` does.
            InputError: another word for ``deinterlace``, or film without the filters for it.
        """
        check_deinterlace(deinterlace)
        if deinterlace == "film" and not can_bring_film_back():
            raise InputError(
                "This build of PyAV has no filter 'fieldmatch', which brings film back: install "
                "PyAV from PyPI (pip install av), or choose 'always'."
            )
        info = info or probe(path)
        times = frame_times(path, check_cancelled=check_cancelled)
        finding = Finding()
        if deinterlace in ("auto", "always", "film"):
            finding = find_fields(path, info, times, check_cancelled=check_cancelled)
        mending = mending_for(deinterlace, info.interlaced, finding)
        if mending.kind == "film":
            times = FilmTimes(times)
            info = replace(info, rate=info.rate * KEPT / CYCLE, time_base=times.time_base)
        return cls(path, info, times, finding, mending)

    def notes(self) -> list[str]:
        """What was found and what is done about it, for the user."""
        kind, order = self.mending.kind, _ORDER[self.mending.order]
        if kind == "film":
            rate, less = float(self.info.rate), " (in 8 bits)" * (self.info.bit_depth > 8)
            return [
                f"The video is telecined film{order}: of every five pictures its four were brought "
                f"back{less}, {rate:.5g} per second."
            ]
        if kind == "none":
            wrong = self.info.interlaced and self.finding.kind == "whole"
            return ["The video is marked as interlaced, but its pictures are whole."] * wrong
        if kind == "all" and self.finding.kind == "fields":
            wrong = self.finding.marked or self.info.interlaced
            order += f", and is {'wrongly' if wrong else 'not'} marked so"
        return [f"The video is interlaced{order}: every two fields were made one whole picture."]

    def reader(self, frames: range, *, check_cancelled: Callable[[], None] = ignore) -> VideoReader:
        """Some of the frames."""
        return VideoReader(
            self.path,
            frames.start,
            frames.stop,
            times=self.times,
            info=self.info,
            check_cancelled=check_cancelled,
            mending=self.mending,
        )
