"""Preview of a piece of the result, and an estimate of time, memory and disk for the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import comfy.model_patcher
import torch
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.frames.color import ColorMode
from ...uav_core.frames.detail import FULL, check_detail, with_detail
from ...uav_core.jobs import JobPlan, disk_needed
from ...uav_core.longvideo import LongVideoParams
from ...uav_core.longvideo.course import DECODING, FLOW, SAMPLING
from ...uav_core.longvideo.estimate import Estimate, Work, clip_bytes
from ...uav_core.models.vae import UPSCALE
from ...uav_core.sampling import schedule
from ...uav_core.sampling.ladder import StepDown
from ...uav_core.sampling.noise import LATENT, LOW_RES
from ...uav_core.sampling.propagation import PropagationParams
from ...uav_core.video import CODECS, EncodeParams
from ..base import settings
from ..base.inputs import to_images, video_frames
from ..base.runtime import check_cancelled, progress_bar, show_status
from ..base.schema import ADVANCED, schema
from ..longvideo.engine import ComfyEngine
from ..sampling.condition import Conditioning, condition
from ..sampling.propagate import FlowPropagation, flow_input, flow_or_builtin
from ..sampling.sample import sample_segments
from .compare import same_size
from .panels import middle, on_node, side_by_side
from .piece import Piece, read_piece

FRAMES = 8
CODEC = CODECS[EncodeParams.codec]
"""The codec for which the size of the saved clip is estimated."""


class PreviewCrop(io.ComfyNode):
    """Upscales a piece of a clip as the run will upscale the whole clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def place(name: str, tooltip: str) -> Any:
            return io.Int.Input(name, default=0, min=0, max=16384, tooltip=tooltip)

        return schema(
            "UpscaleAVideoPreviewCrop",
            "Preview Crop (Upscale-A-Video)",
            ("test render", "region preview", "how long will it take", "time estimate", "vram"),
            description="Upscales a few frames, or a crop of them, with the settings of the run. "
            "From the time this takes, it estimates time and memory for the whole clip.",
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input("model", tooltip="The temporal U-Net."),
                io.Vae.Input("vae", tooltip="From 'Load Temporal VAE'."),
                io.MultiType.Input(
                    "clip",
                    [io.Image, io.Video],
                    tooltip="The clip to upscale: frames or a VIDEO. Only the needed part of a "
                    "VIDEO is read.",
                ),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Encoded text. Connect 'CLIP Text Encode' directly.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Encoded text: what to avoid, such as 'blur, worst quality'.",
                ),
                flow_input(),
                io.Int.Input(
                    "first_frame",
                    default=0,
                    min=0,
                    max=10_000_000,
                    tooltip="First frame of the preview, counted from 0. For a time, multiply the "
                    "seconds by the frame rate.",
                ),
                io.Int.Input(
                    "frames",
                    default=FRAMES,
                    min=1,
                    max=1024,
                    tooltip="Number of frames in the preview. Use at least one segment (8) to see "
                    "the motion.",
                ),
                place("x", "Left edge of the crop, in pixels of the input."),
                place("y", "Upper edge of the crop, in pixels of the input."),
                place(
                    "width", "Width of the crop, in pixels of the input. 0: up to the right edge."
                ),
                place(
                    "height",
                    "Height of the crop, in pixels of the input. 0: down to the bottom edge.",
                ),
                settings.noise_level_input("As in 'Low-Res Conditioning'."),
                settings.steps_input("As in 'Segment Sampler'."),
                settings.guidance_input("As in 'Segment Sampler'."),
                io.String.Input(
                    "propagation_steps",
                    default="24,26,28",
                    tooltip="As 'steps' in 'Flow-Guided Propagation'. Empty: no propagation.",
                ),
                settings.color_fix_input("As in 'Temporal VAE Decode'."),
                settings.seed_input(
                    "Seed of all noise. The preview gets the noise of its place in the clip."
                ),
                settings.strength_input(
                    "propagation_strength", "As 'strength' in 'Flow-Guided Propagation'."
                ),
                settings.segment_length_input(
                    "As in 'Segment Sampler'.", optional=True, **ADVANCED
                ),
                settings.overlap_input("As in 'Segment Sampler'.", optional=True, **ADVANCED),
                settings.frames_per_group_input(
                    "As in 'Temporal VAE Decode'.", optional=True, **ADVANCED
                ),
                settings.lr_guidance_input(
                    "As in 'Temporal VAE Decode'.", optional=True, **ADVANCED
                ),
                settings.detail_input("As in 'Detail'."),
                settings.self_ensemble_input("As in 'Temporal VAE Decode'.", **ADVANCED),
            ],
            outputs=[
                io.Image.Output(display_name="upscaled", tooltip="The upscaled preview."),
                io.Image.Output(
                    display_name="bicubic",
                    tooltip="The same frames enlarged without a model, for comparison.",
                ),
                io.String.Output(
                    display_name="estimate",
                    tooltip="Time, memory and disk space for the whole clip.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: comfy.model_patcher.ModelPatcher,
        vae: Any,
        clip: Any,
        first_frame: int,
        frames: int,
        x: int,
        y: int,
        width: int,
        height: int,
        color_fix: ColorMode,
        propagation_strength: float,
        detail: float = FULL,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
        flow_model: Any = None,
        **values: Any,
    ) -> io.NodeOutput:
        check_detail(detail)
        propagation = PropagationParams(propagation_strength)
        params = LongVideoParams(**values, color=color_fix, propagation=propagation)
        flow_model = flow_or_builtin(flow_model)
        engine = ComfyEngine(model, vae, positive, negative, flow_model, params)
        part, piece = read_piece(clip, first_frame, frames, x, y, width, height)
        work = Work(params, [len(part)], *piece.size)
        taken: list[StepDown] = []
        upscaled, seconds = render(engine, part, piece, work, taken.append)
        if detail != FULL:
            pieces = video_frames(upscaled), video_frames(part)
            upscaled = to_images(with_detail(*pieces, detail))
        plain, result = (to_images(c) for c in same_size([part, upscaled]))
        whole = estimate_clip(engine, piece, work, seconds, isinstance(clip, Tensor))
        text = "\n".join([whole.to_text(engine.device), *map(str, taken)])
        show_status(cls, text)
        shown = side_by_side([middle(plain), middle(result)], ["bicubic", "upscaled"])
        return io.NodeOutput(result, plain, text, ui=on_node(shown, text))


def render(
    engine: ComfyEngine,
    part: Tensor,
    piece: Piece,
    work: Work,
    on_step: Callable[[StepDown], None],
) -> tuple[Tensor, dict[str, float]]:
    """The frames ``part`` of the piece, upscaled as in a run, and the seconds of every stage.

    ``on_step`` is called with each step down after memory ran out.
    """
    params, frames = work.params, video_frames(part)
    noise = piece.noise(params.seed, LOW_RES, 3).to(frames)
    low_res = schedule.noise_low_res(frames, noise, params.noise_level)
    latent = piece.noise(params.seed, LATENT, 4)

    propagation, flowing = None, 0.0
    if work.propagates:
        propagation = FlowPropagation(
            engine.flow_model,
            frames,
            params.propagation_steps,
            params.propagation,
            params.flow_iterations,
        )
        if work.pairs:
            started = time.perf_counter()
            propagation.estimate(on_step=on_step)
            flowing = time.perf_counter() - started

    passes = Laps()
    positive, negative = (condition(text, low_res, params.noise_level) for text in engine.texts)
    samples = sample_segments(
        engine.model,
        positive,
        negative,
        torch.zeros_like(latent),
        latent,
        steps=params.steps,
        guidance=params.guidance,
        seed=params.seed,
        segment_length=params.segment_length,
        overlap=params.overlap,
        propagation=propagation,
        on_pass=passes.lap,
        on_step=on_step,
    )
    sampling = passes.mean() * work.passes

    engine.vae.load(max(work.groups), *piece.size)
    groups, bar = Laps(), progress_bar(len(work.groups))

    def progress(done: int, total: int) -> None:
        groups.lap()
        bar(done, total)

    upscaled = engine.vae.decode_video(
        samples,
        frames,
        w=params.lr_guidance,
        group=params.frames_per_group,
        color=params.color,
        self_ensemble=params.self_ensemble,
        progress=progress,
        on_step=on_step,
    )
    check_cancelled()
    decoding = groups.mean() * len(work.groups)
    return upscaled, {SAMPLING: sampling, DECODING: decoding, FLOW: flowing}


class Laps:
    """Times of repeated work."""

    def __init__(self) -> None:
        self.times = [time.perf_counter()]

    def lap(self) -> None:
        """Record the end of one repetition."""
        self.times.append(time.perf_counter())

    def mean(self) -> float:
        """Mean seconds of a lap until now, without the first (loading) if there are several."""
        laps = len(self.times) - 1
        first = 1 if laps > 1 else 0
        return (time.perf_counter() - self.times[first]) / max(laps - first, 1)


def estimate_clip(
    engine: ComfyEngine,
    piece: Piece,
    part: Work,
    seconds: Mapping[str, float],
    held_whole: bool,
) -> Estimate:
    """Estimate for the whole clip, from the ``seconds`` of every stage for ``part``.

    ``held_whole``: run by the nodes for clips, else by 'Upscale Long Video'.
    """
    params, t, h, w = part.params, piece.frames, piece.h, piece.w
    work = Work(params, [t], h, w)
    each = CODEC.bits_per_pixel / 8 * UPSCALE**2 * h * w
    held, disk = clip_bytes(t, h, w), round(each * t)
    if not held_whole:
        held = params.stream(t, h, w).state_bytes
        plan = JobPlan(t, params.part_length, (range(t),))
        disk = disk_needed(plan, each, state_bytes=held)
    return Estimate(
        work,
        work.scaled(part, seconds),
        pass_bytes=engine.memory("sample", max(work.segments), h, w),
        group_bytes=engine.memory("decode", max(work.groups), h, w),
        held_bytes=held,
        disk_bytes=disk,
    )
