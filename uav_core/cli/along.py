"""Enlarges mattes and depth, videos or numbered pictures, in step with the finished video."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..callbacks import Progress
from ..errors import InputError
from ..files import check_target
from ..flow.estimate import NeighbourFlow
from ..jobs.passing import passing_folder
from ..sampling.along import check_along, enlarged_along
from ..video import EncodeParams, Footage, VideoReader, encode_part, frame_times, join, probe
from ..video.sequences import Frames, numbers_of, save_numbers, size_of
from .frames import named

log = logging.getLogger("upscale_a_video")

VIDEOS = {".mkv": ("ffv1", "gbrp16le"), ".mov": ("prores", "yuv444p10le"), ".mp4": ("h264", "auto")}
"""Codec and pixel format by the extension of the file to write."""
FLOW_SIDE = 960
"""Longest side, in pixels, at which motion is estimated."""


@dataclass(frozen=True)
class Layer:
    """One matte or depth clip to enlarge along with the video."""

    source: Path
    target: Path
    given: Frames | None
    """The pictures to read; None for a video."""
    made: Frames | None
    """The pictures to write; None for a video."""

    @classmethod
    def of(cls, source: Path, target: Path) -> Layer:
        """A layer from the two paths of --along; InputError if they do not fit together."""
        given = Frames.there(source)
        made = named(target, given)
        if made is None and given is not None:
            raise InputError(
                f"'{target}' as output for '{source}': expected numbered pictures, like the input."
            )
        if made is None and target.suffix.lower() not in VIDEOS:
            raise InputError(
                f"'{target}': expected numbered pictures, or a file that ends in "
                f"{', '.join(VIDEOS)}."
            )
        if made is not None and made.linear != (given is not None and given.linear):
            raise InputError(
                f"'{target}' as output for '{source}': expected EXR output for EXR input, whose "
                "values may have any range, and PNG or a video for other input."
            )
        return cls(source, target, given, made)

    @property
    def first(self) -> int:
        """The number of the first picture to write."""
        return self.given.numbers[0] if self.given is not None else 1

    def measured(self) -> tuple[int, int, int]:
        """Number of frames, rows and columns of the source."""
        if self.given is not None:
            w, h = size_of(self.given)
            return len(self.given.numbers), h, w
        info = probe(self.source)
        return len(frame_times(self.source)), info.height, info.width

    def values(self) -> Iterator[Tensor]:
        """Values (c, h, w) of each frame: unchanged from EXR, in [0, 1] from others."""
        if self.given is not None:
            yield from numbers_of(self.given)
        else:
            for frame in VideoReader(self.source):
                yield (frame + 1) / 2

    def inputs(self) -> list[Path]:
        """The files to read."""
        return [self.source] if self.given is None else self.given.paths()

    def outputs(self, count: int) -> list[Path]:
        """The files to write."""
        if self.made is None:
            return [self.target]
        return [self.made.path(self.first + i) for i in range(count)]


def check_layers(
    o: argparse.Namespace, given: Frames | None, made: Frames | None, picture: Path
) -> list[Layer]:
    """The layers that --along names, checked before any work.

    Args:
        o: the command line.
        given: the pictures to upscale; None for a video.
        made: the pictures to write; None for a video.
        picture: the finished video.

    Raises:
        InputError: anything that ``write_layer`` would refuse; the message says what.
    """
    if not o.along:
        return []
    if o.workers or (given is None and not o.input.is_file()):
        raise InputError(
            "--along works with one process and one input: leave out --workers, and give one "
            "video or numbered pictures instead of a folder of videos."
        )
    if o.aspect in ("pad", "crop"):
        raise InputError(
            f"--along with --aspect {o.aspect}: expected fit or stretch, which keep the whole "
            "picture."
        )
    if given is not None:
        (w, h), count = size_of(given), len(given.numbers)
    else:
        footage = Footage.open(o.input, o.deinterlace)
        w, h, count = footage.info.width, footage.info.height, len(footage.times)
    layers = [Layer.of(source, target) for source, target in o.along]
    upscaled = Layer(o.input, picture, given, made)
    used = [picture, o.input, *upscaled.outputs(count)]
    used += [path for layer in (upscaled, *layers) for path in layer.inputs()]
    taken = set(map(os.path.realpath, used))
    for layer in layers:
        check_along(layer.measured(), (count, h, w), f"'{layer.source}'")
        for path in layer.outputs(count):
            real = os.path.realpath(path)
            if real in taken:
                raise InputError(
                    f"This run uses the file '{path}' already: expected a different file name."
                )
            taken.add(real)
            if path.exists() and not picture.exists():
                raise InputError(f"'{path}' already exists: choose another name, or move it away.")
        for _ in numbers_of(layer.given) if layer.given is not None else ():
            pass  # reading checks values and sizes of pictures; a video is read later
    for layer in layers:
        path = layer.outputs(1)[0]
        check_target(path.parent, path.name)
    return layers


def write_layer(
    layer: Layer, picture: Path, flow: nn.Module, device: torch.device, progress: Progress
) -> None:
    """Enlarge one layer along the finished video; a complete result is left as it is.

    Raises InputError, EncodeError, DiskFullError and FileError.
    """
    guides = VideoReader(picture)
    count = len(guides)
    if all(path.exists() for path in layer.outputs(count)):
        log.info("'%s' already exists and is not changed.", layer.target)
        return
    neighbours = NeighbourFlow(flow.to(device))

    def between(earlier: Tensor, later: Tensor) -> tuple[Tensor, Tensor]:
        forward, back = neighbours.both_ways(earlier, later, FLOW_SIDE)
        return forward, back

    def frames() -> Iterator[Tensor]:
        on_device = (guide.to(device) for guide in guides)
        for done, frame in enumerate(enlarged_along(layer.values(), on_device, between), start=1):
            yield frame
            progress(done, count)

    if layer.made is not None:
        for path, frame in zip(layer.outputs(count), frames(), strict=True):
            save_numbers(path, frame)
    else:
        codec, pixels = VIDEOS[layer.target.suffix.lower()]
        params = EncodeParams(codec, layer.target.suffix.lower(), pixel_format=pixels)
        params = params.for_source(probe(layer.source))
        size = (guides.info.width, guides.info.height)
        shown = (frame.expand(3, -1, -1) * 2 - 1 for frame in frames())
        with passing_folder(layer.target.parent, ".along_") as folder:
            part = encode_part(folder / "part.mkv", shown, params, size)
            join([part], layer.target, frame_times(layer.source), layer.source, params)
    log.info("%d frames written: %s", count, layer.target)
