"""Upscales from or to numbered pictures."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import InputError
from ..files import check_target
from ..jobs.passing import passing_folder
from ..video.sequences import Frames, gather, scatter

log = logging.getLogger("upscale_a_video")


def named(target: Path, given: Frames | None) -> Frames | None:
    """The pictures that ``target`` means (in a folder, with ``given``'s names); None: a video."""
    made = Frames.named(target)
    if made is None and given is not None and (target.is_dir() or not target.suffix):
        made = replace(given, folder=target)
    return made


def written(o: argparse.Namespace, given: Frames | None) -> Frames | None:
    """The pictures to write; None for a video."""
    made = named(o.output, given)
    if made is None:
        return None
    if o.workers:
        raise InputError(
            f"--workers with the output '{o.output}': expected a video as output. Leave --workers "
            "out to write pictures."
        )
    if given is None and not o.input.is_file():
        raise InputError(
            f"'{o.input}' as input for the pictures '{o.output}': expected a video file or "
            "numbered pictures."
        )
    if made.linear and not (given is not None and given.linear):
        raise InputError(
            f"'{o.output}' is EXR, which stores linear light, but '{o.input}' is not: expected "
            "EXR as input too. Write PNG instead, which has 16 bits."
        )
    return made


def upscale_frames(
    o: argparse.Namespace,
    given: Frames | None,
    made: Frames | None,
    upscale: Callable[[argparse.Namespace, Path, Path], None],
) -> None:
    """Upscale ``given``, or the input video, into ``made``, or the output video.

    Pictures are written from a video of 16 bits, which stays beside them: it has the sound, and
    the same command writes them from it again.
    """
    target, first = o.output, given.numbers[0] if given else 1
    if made is not None:
        target = made.master
        if not target.exists() and os.path.lexists(made.path(first)):
            raise InputError(
                f"'{made.path(first)}' already exists: choose another name, or move it away."
            )
        own = {"codec": "ffv1", "pixel_format": "gbrp16le", "crf": None}
        o = argparse.Namespace(**{**vars(o), **own})
    if given is None:
        upscale(o, o.input, target)
    else:
        check_target(target.parent, target.name)
        with passing_folder(target.parent, ".frames_") as folder:
            source = folder / given.master.with_suffix(".nut").name
            log.info("Reading %d frames of %s", len(given.numbers), given.folder)
            gather(given, source, o.rate)
            upscale(o, source, target)
    if made is not None:
        count = scatter(target, made, first)
        log.info("%d frames written, the first is %s", count, made.path(first))
