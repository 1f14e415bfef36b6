"""A video of any length, from file to file."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import comfy.model_patcher
import folder_paths
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import io, ui

from ...uav_core.frames.color import ColorMode
from ...uav_core.frames.output_size import OutputSize
from ...uav_core.jobs import FOLDER
from ...uav_core.longvideo import LongVideo, LongVideoParams, Resizing
from ...uav_core.longvideo.params import PART_LENGTH
from ...uav_core.longvideo.parts import PROGRESS
from ...uav_core.paths import inside
from ...uav_core.sampling.guidance import GuidanceRange
from ...uav_core.sampling.propagation import PropagationParams
from ...uav_core.video import CODECS, Deinterlace, EncodeParams, probe
from ...uav_core.video.scenes import METHODS, SceneParams
from ..base.runtime import check_cancelled, progress_bar, show_status, show_text
from ..base.schema import (
    ADVANCED,
    LONG_VIDEO,
    schema,
    set_up,
)
from ..base.settings import (
    color_fix_input,
    detail_input,
    frames_per_group_input,
    guidance_input,
    lr_guidance_input,
    noise_level_input,
    overlap_input,
    seed_input,
    segment_length_input,
    self_ensemble_input,
    share_input,
    steps_input,
    strength_input,
    tile_input,
    tile_overlap_input,
)
from ..frames.output_size import AFTER, BEFORE, size_inputs, when
from ..sampling.condition import Conditioning
from ..sampling.propagate import flow_input, flow_or_builtin
from ..sampling.sample import told_unfit
from .engine import ComfyEngine
from .prefix import resolved
from .video_file import video_file

Options = io.Custom("UAV_VIDEO_OPTIONS")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoOptions:
    """The output of 'Options for Long Video': settings of the run and of the video file."""

    encode: EncodeParams = field(default_factory=EncodeParams)
    run: dict[str, Any] = field(default_factory=dict)
    """Fields of LongVideoParams, by name."""


def prefix_input(**extra: Any) -> Any:
    """Input for the path of the result; ``extra`` arguments such as ADVANCED."""
    return io.String.Input(
        "filename_prefix",
        default="video/upscaled",
        tooltip="Path in ComfyUI's output folder and beginning of the file name; the start of the "
        "job's id is added. Tokens such as %year%, %date:yyyy-MM-dd% and %Node.widget% work as in "
        "'Save Video'.",
        **extra,
    )


class LongVideoOptions(io.ComfyNode):
    """The settings of a long video that rarely change."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        formats = list(dict.fromkeys(f for codec in CODECS.values() for f in codec.pixel_formats))
        containers = list(dict.fromkeys(c for codec in CODECS.values() for c in codec.containers))
        return schema(
            "UpscaleAVideoLongVideoOptions",
            "Options for Long Video (Upscale-A-Video)",
            ("codec", "crf", "scene cuts", "tiles", "output size", "resize video", "deinterlace"),
            category=LONG_VIDEO,
            description="Sets the file format, scene cuts, tiles, decoding and output size of "
            "'Upscale Long Video'.",
            inputs=[
                io.Combo.Input(
                    "codec",
                    options=list(CODECS),
                    default="h264",
                    tooltip="h264 plays everywhere; h265 and av1 give smaller files; prores is for "
                    "editing; ffv1 is lossless and very large.",
                ),
                io.Combo.Input(
                    "container",
                    options=containers,
                    default=".mp4",
                    tooltip="File type. ffv1 needs .mkv; prores needs .mov or .mkv.",
                ),
                io.Int.Input(
                    "crf",
                    default=-1,
                    min=-1,
                    max=63,
                    tooltip="Quality of h264, h265 and av1. Lower values give better quality and "
                    "larger files. -1: the codec's usual value (18, 20, 26).",
                ),
                io.Combo.Input(
                    "pixel_format",
                    options=["auto", *formats],
                    default="auto",
                    tooltip="auto: 4:2:0, with 10 bits if the input has more than 8.",
                ),
                io.Combo.Input(
                    "cut_detection",
                    options=list(METHODS),
                    default="auto",
                    tooltip="How scene cuts are detected. auto uses PySceneDetect if it is "
                    "installed, otherwise the pack's own method. Nothing is carried over a cut.",
                ),
                io.String.Input(
                    "cuts",
                    default="",
                    tooltip="Replaces the detected cuts: frames or times, such as '340, 0:12.5'. "
                    "'0': no cuts.",
                ),
                tile_input(
                    "Tile size, in pixels of the input; 0: whole frames. If memory runs out, tiles "
                    "are used automatically."
                ),
                tile_overlap_input("tile_overlap"),
                strength_input(
                    "propagation_strength", "As 'strength' in 'Flow-Guided Propagation'."
                ),
                segment_length_input("As in 'Segment Sampler'.", **ADVANCED),
                overlap_input("As in 'Segment Sampler'.", **ADVANCED),
                frames_per_group_input("As in 'Temporal VAE Decode'.", **ADVANCED),
                lr_guidance_input("As in 'Temporal VAE Decode'.", **ADVANCED),
                io.Int.Input(
                    "part_length",
                    default=PART_LENGTH,
                    min=1,
                    max=10_000,
                    **ADVANCED,
                    tooltip="Number of frames that are encoded and saved together. A crash loses "
                    "at most this many frames.",
                ),
                # Optional and at the end, so that graphs made before these inputs still work.
                *size_inputs(
                    "output_size",
                    "Which of the values below sets the output size. It must be 1 to 4 times the "
                    "input size.",
                    4.0,
                    optional=True,
                ),
                io.Combo.Input(
                    "resize",
                    options=[BEFORE, AFTER],
                    default=AFTER,
                    optional=True,
                    tooltip="Used if the output is not 4x. before: shrinks every frame before "
                    "upscaling; 2x takes a quarter of the time of 4x. after: resizes every "
                    "upscaled frame and keeps all detail of the input.",
                ),
                share_input("guidance_start", 0.0, "As in 'Segment Sampler'."),
                share_input("guidance_end", 1.0, "As in 'Segment Sampler'."),
                io.Combo.Input(
                    "deinterlace",
                    options=list(get_args(Deinterlace)),
                    default="auto",
                    optional=True,
                    tooltip="For interlaced video, as on old television and tapes. auto: checks "
                    "some frames, then deinterlaces or restores telecined film; always: all "
                    "frames; never: none; top, bottom: all, upper or lower lines first; film: "
                    "keeps four of every five frames.",
                ),
                self_ensemble_input("As in 'Temporal VAE Decode'."),
            ],
            outputs=[Options.Output(display_name="options", tooltip="For 'Upscale Long Video'.")],
        )

    @classmethod
    def execute(cls, **given: Any) -> io.NodeOutput:
        run = set_up(cls, given)  # defaults for inputs that older graphs lack

        def take(*names: str) -> list[Any]:
            return [run.pop(name) for name in names]

        codec, container, crf, pixel_format = take("codec", "container", "crf", "pixel_format")
        encode = EncodeParams(codec, container, None if crf < 0 else crf, pixel_format)
        size = take("output_size", "factor", "short_side", "width", "height", "aspect")
        run |= {
            "scenes": SceneParams(*take("cut_detection")),
            "propagation": PropagationParams(*take("propagation_strength")),
            "size": OutputSize(*size),
            "resize": when(run["resize"]),
            "guided": GuidanceRange(*take("guidance_start", "guidance_end")),
        }
        LongVideoParams(**run)
        return io.NodeOutput(VideoOptions(encode, run))


class UpscaleLongVideo(io.ComfyNode):
    """VIDEO -> VIDEO, as a stream that can be resumed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoLongVideo",
            "Upscale Long Video (Upscale-A-Video)",
            ("stream video upscale", "long video", "resume", "video to video upscale"),
            category=LONG_VIDEO,
            description="Upscales a video file of any length, to 4x or another size. Memory does "
            "not grow with the length. Nothing is carried over a scene cut. Finished parts are "
            "kept on disk: after a crash or a cancel, queue the same again to continue.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Model.Input("model", tooltip="From 'Load Temporal U-Net'."),
                io.Vae.Input("vae", tooltip="From 'Load Temporal VAE'."),
                io.Video.Input(
                    "video", tooltip="From 'Load Video', or any other node with a VIDEO output."
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Encoded text: what the video shows, ending in 'best quality, "
                    "extremely detailed'. Connect 'CLIP Text Encode' directly.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Encoded text: what to avoid, such as 'blur, worst quality'.",
                ),
                flow_input(),
                Options.Input(
                    "options",
                    optional=True,
                    tooltip="From 'Options for Long Video': file format, scene cuts, tiles, output "
                    "size.",
                ),
                noise_level_input("As in 'Low-Res Conditioning'."),
                steps_input(
                    "Number of sampling steps. The reference implementation uses 30; more "
                    "steps take more time."
                ),
                guidance_input("As in 'Segment Sampler'."),
                io.String.Input(
                    "propagation_steps",
                    default="24,26,28",
                    tooltip="As 'steps' in 'Flow-Guided Propagation'. Empty: no propagation.",
                ),
                color_fix_input("As in 'Temporal VAE Decode'."),
                seed_input(
                    "Seed of all noise. Each frame's noise depends on its place in its scene."
                ),
                prefix_input(),
                detail_input(
                    "How much of the upscaled result is kept. Changing it starts a new job."
                ),
            ],
            outputs=[
                io.Video.Output(tooltip="The finished video file."),
                io.String.Output(
                    display_name="report", tooltip="Summary of the run and its speed."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        vae: Any,
        video: Any,
        color_fix: ColorMode,
        filename_prefix: str,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
        flow_model: Any = None,
        options: VideoOptions | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        options = options or VideoOptions()
        params = LongVideoParams(**options.run, **settings, color=color_fix)
        unfit = told_unfit(cls, model, params.steps, params.guidance)
        flow_model = flow_or_builtin(flow_model)
        engine = ComfyEngine(model, vae, positive, negative, flow_model, params)
        output = folder_paths.get_output_directory()
        shown = Shown(cls)
        output_place(output, filename_prefix)  # only to check the prefix early
        with video_file(video) as (path, span):
            size = Resizing.of(params, probe(path)).plan.size
            target = output_place(output, filename_prefix, size)
            with shown:
                report = LongVideo(
                    path,
                    target.parent,
                    engine,
                    params,
                    options.encode,
                    name=target.name,
                    span=span,
                    jobs=os.path.join(output, FOLDER),
                    progress=progress_bar(PROGRESS),
                    status=shown.status,
                    stage=shown.stage,
                    check_cancelled=check_cancelled,
                ).run()
        text = "\n".join(filter(None, (report.to_text(), unfit)))
        show_status(cls, text)
        finished = Path(report.output)
        subfolder = finished.parent.relative_to(Path(output).resolve()).as_posix()
        saved = ui.SavedResult(
            finished.name, "" if subfolder == "." else subfolder, io.FolderType.output
        )
        shown = ui.PreviewVideo([saved]).as_dict()
        return io.NodeOutput(VideoFromFile(str(finished)), text, ui={**shown, "text": (text,)})


STOPPED = "Stopped. Finished parts are kept: queue the same again to continue."


class Shown:
    """The text on a node during a run: the current stage first, then the last status.

    As a context: a run that Cancel or an error ends leaves STOPPED, not the stage it was in.
    """

    def __init__(self, node: type[io.ComfyNode]) -> None:
        self.node, self._stage, self._status = node, "", ""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind and self._stage:  # without a stage nothing had begun
            show_text(self.node, STOPPED)

    def stage(self, text: str) -> None:
        """Show the current stage. It changes too often for the log."""
        self._stage = text
        show_text(self.node, self._text)

    def status(self, text: str) -> None:
        """Show a new status, and log it."""
        self._status = text
        log.info("%s", text)
        show_text(self.node, self._text)

    @property
    def _text(self) -> str:
        return "\n".join(filter(None, (self._stage, self._status)))


def output_place(output: str, prefix: str, size: tuple[int, int] = (0, 0)) -> Path:
    """Path in ComfyUI's output folder with the start of the file name, for a video of (h, w).

    Raises UnsafePathError for a prefix that leads out of the folder, InputError as ``resolved``.
    """
    prefix = resolved(prefix, size[1], size[0])
    parts = [part for part in prefix.replace("\\", "/").split("/") if part] or ["upscaled"]
    return inside(output, *parts)
