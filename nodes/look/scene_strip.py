"""A picture of the scenes of a clip, and its cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.longvideo.source import frames_of_span, seconds_of
from ...uav_core.metrics import thumbnail
from ...uav_core.video import Footage
from ...uav_core.video.scenes import METHODS, Method, SceneParams, find_cuts, plan_scenes
from ..base.inputs import checked_frames
from ..base.runtime import check_cancelled, progress_bar
from ..base.schema import ADVANCED, LOOK, schema
from ..base.settings import number
from ..longvideo.video_file import video_file
from .panels import filled, on_node, side_by_side, stacked

LONGEST_ROW = 1600
NARROWEST = 150
MOST_SCENES = 200


@dataclass(frozen=True)
class Frames:
    """A clip that is read in parts."""

    count: int
    read: Callable[[slice], Iterable[Tensor]]
    """Some of the frames, each (3, h, w) in [-1, 1] and valid until the next one is read."""
    seconds: Sequence[float] | None = None
    """When each frame is shown; None for an IMAGE, which has no times."""


class SceneStrip(io.ComfyNode):
    """VIDEO or frames -> the first frame of every scene, and the cuts."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoSceneStrip",
            "Scene Strip (Upscale-A-Video)",
            ("scene detection", "shot detection", "cuts", "contact sheet", "storyboard"),
            category=LOOK,
            description="Detects the scene cuts as 'Upscale Long Video' does and shows the first "
            "frame of every scene, so that you can check the cuts before a long run.",
            is_output_node=True,
            inputs=[
                io.MultiType.Input(
                    "clip",
                    [io.Video, io.Image],
                    tooltip="A VIDEO (read frame by frame) or frames.",
                ),
                io.Combo.Input(
                    "cut_detection",
                    options=list(METHODS),
                    default="auto",
                    tooltip="As in 'Options for Long Video'. auto uses PySceneDetect if it is "
                    "installed, otherwise the pack's own method.",
                ),
                number("height", 120, 32, 1024, "Height of the pictures in the strip."),
                io.Float.Input(
                    "threshold",
                    default=SceneParams.threshold,
                    min=1.1,
                    max=50.0,
                    step=0.1,
                    optional=True,
                    **ADVANCED,
                    tooltip="How many times larger the change at a cut must be than the changes "
                    "around it. Higher values find fewer cuts. 'Upscale Long Video' always uses 3; "
                    "for other cuts, connect 'cuts' to its options.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="strip", tooltip="The first frame of every scene, in rows."
                ),
                io.String.Output(
                    display_name="cuts",
                    tooltip="For 'cuts' of 'Options for Long Video': the first frame after each "
                    "cut; '0' if there are no cuts.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: Any,
        cut_detection: Method,
        height: int,
        threshold: float = SceneParams.threshold,
    ) -> io.NodeOutput:
        if height < 1:  # a linked value can be below the input's least
            raise InputError(
                f"The height arrived as {height}: expected 1 px or more. Set 'height' to 120, or "
                "check the node that is connected to it."
            )
        params = SceneParams(cut_detection, threshold)
        with frames_of(clip) as frames:
            bar = progress_bar(frames.count)
            cuts = find_cuts(counted(frames.read(slice(None)), bar, frames.count), params)
            scenes = plan_scenes(frames.count, cuts)[:MOST_SCENES]
            pictures = [
                thumbnail(frame, height)
                for scene in scenes
                for frame in frames.read(slice(scene.start, scene.start + 1))
            ]
        labels = [label(i, scene, frames.seconds) for i, scene in enumerate(scenes, start=1)]
        strip = in_rows(pictures, labels)
        # The format of 'cuts' in 'Options for Long Video'; "0" for none.
        text = ", ".join(map(str, cuts)) or "0"
        return io.NodeOutput(strip, text, ui=on_node(strip, text))


@contextmanager
def frames_of(clip: Any) -> Iterator[Frames]:
    """The frames of an IMAGE or a VIDEO; InputError for other inputs."""
    if isinstance(clip, Tensor):
        clip = checked_frames(clip)
        yield Frames(len(clip), lambda part: (x.movedim(-1, 0) * 2 - 1 for x in clip[part]))
        return
    with video_file(clip) as (path, span):
        footage = Footage.open(path, check_cancelled=check_cancelled)
        times = footage.times
        meant = frames_of_span(span, times)

        def read(part: slice) -> Iterator[Tensor]:
            with footage.reader(meant[part], check_cancelled=check_cancelled) as reader:
                yield from reader

        yield Frames(len(meant), read, seconds_of(meant, times))


def counted(
    frames: Iterable[Tensor], progress: Callable[..., None], total: int
) -> Iterator[Tensor]:
    """The frames, with progress reports and checks for cancel."""
    for i, frame in enumerate(frames):
        check_cancelled()
        progress(i + 1, total)
        yield frame


def label(number: int, scene: range, seconds: Sequence[float] | None) -> str:
    """Label of a scene, for example "2: frame 48, 0:02.0"."""
    text = f"{number}: frame {scene.start}"
    if seconds is None:
        return text
    at = seconds[scene.start]
    return f"{text}, {int(at // 60)}:{at % 60:04.1f}"


def in_rows(pictures: Sequence[Tensor], labels: Sequence[str]) -> Tensor:
    """Pictures (3, h, w) in [-1, 1] of one size, in rows with labels above, as an IMAGE."""
    panels = [picture.add(1).div(2).movedim(0, -1)[None].cpu() for picture in pictures]
    panels = [filled(panel, panel.shape[1], max(NARROWEST, panel.shape[2])) for panel in panels]
    columns = min(len(panels), max(1, LONGEST_ROW // panels[0].shape[2]))
    rows = []
    for start in range(0, len(panels), columns):
        row, names = panels[start : start + columns], [*labels[start : start + columns]]
        missing = columns - len(row)
        empty = filled(torch.zeros(1, 0, 0, 3), *panels[0].shape[1:3])
        rows.append(side_by_side([*row, *[empty] * missing], [*names, *[" "] * missing]))
    return stacked(rows)
