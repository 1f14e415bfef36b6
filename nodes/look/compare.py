"""Compare versions of a clip: side by side, over time, and in numbers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.flow.estimate import bounded_size
from ...uav_core.metrics import compare, joint_borders, temporal_profile
from ...uav_core.sampling.segments import DECODE_GROUP, OVERLAP, SEGMENT_LENGTH
from ..base.inputs import to_images, video_frames
from ..base.runtime import check_cancelled, load_models, progress_bar
from ..base.schema import ADVANCED, LOOK, schema
from ..base.settings import number
from ..sampling.propagate import flow_input, flow_memory, flow_or_builtin
from .panels import on_node, side_by_side, stacked, table_picture

MOTION_SIDE = 512
# Height in pixels to which a temporal profile is stretched.
PROFILE_HEIGHT = 96


class Compare(io.ComfyNode):
    """Clips -> comparison pictures and a table of measures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoCompare",
            "Compare Videos (Upscale-A-Video)",
            (
                "side by side",
                "before after",
                "video metrics",
                "warping error",
                "measure flicker",
                "psnr",
            ),
            category=LOOK,
            description="Shows two or three versions of a clip side by side. It measures how "
            "steady each is and, with a reference, how close it is to the reference.",
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "first",
                    tooltip="The input, or another version. Without a reference, the warping error "
                    "of all clips uses its motion. Smaller clips are enlarged (bicubic) to the "
                    "size of the largest.",
                ),
                io.Image.Input("second", tooltip="A version with the same number of frames."),
                io.Image.Input("third", optional=True, tooltip="A third version."),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="The true clip, if you have it. Adds PSNR, SSIM, HaarPSI and GMSD; the "
                    "warping error then uses its motion.",
                ),
                flow_input(),
                io.String.Input(
                    "names",
                    default="input, upscaled, third",
                    tooltip="Names of the clips, separated by commas.",
                ),
                io.Boolean.Input(
                    "labels", default=True, tooltip="Write the names above the pictures."
                ),
                io.Float.Input(
                    "profile_line",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Vertical position of the line that the profile shows over time: 0 "
                    "top, 1 bottom. Flicker appears as stripes, motion as slopes.",
                ),
                io.Int.Input(
                    "segment_length",
                    default=SEGMENT_LENGTH,
                    min=0,
                    max=4096,
                    **ADVANCED,
                    tooltip="As in 'Segment Sampler', to measure the transitions between segments. "
                    "0: not measured.",
                ),
                number("overlap", OVERLAP, 0, 4095, "As in 'Segment Sampler'.", **ADVANCED),
                io.Int.Input(
                    "frames_per_group",
                    default=DECODE_GROUP,
                    min=0,
                    max=4096,
                    **ADVANCED,
                    tooltip="As in 'Temporal VAE Decode', to measure the transitions between its "
                    "groups. 0: not measured.",
                ),
                io.Int.Input(
                    "motion_side",
                    default=MOTION_SIDE,
                    min=16,
                    max=8192,
                    **ADVANCED,
                    tooltip="Longer side, in pixels, of the frames from which motion is estimated. "
                    "Higher values detect the motion of smaller objects and take longer.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="side by side", tooltip="All versions, frame by frame."
                ),
                io.Image.Output(
                    display_name="profile",
                    tooltip="One line of every frame, with time running downward; the clips are "
                    "below each other.",
                ),
                io.String.Output(display_name="table", tooltip="The measurements, as a table."),
                io.String.Output(
                    display_name="json", tooltip="The same measurements as JSON, for programs."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        first: Tensor,
        second: Tensor,
        names: str,
        labels: bool,
        profile_line: float,
        segment_length: int = SEGMENT_LENGTH,
        overlap: int = OVERLAP,
        frames_per_group: int = DECODE_GROUP,
        motion_side: int = MOTION_SIDE,
        third: Tensor | None = None,
        reference: Tensor | None = None,
        flow_model: Any = None,
    ) -> io.NodeOutput:
        given = [clip for clip in (first, second, third) if clip is not None]
        called = clip_names(names, len(given))
        borders = joint_borders(len(first), segment_length, overlap, frames_per_group)
        everything = same_size([*given, *([] if reference is None else [reference])])
        clips = dict(zip(called, everything, strict=False))
        target = None if reference is None else everything[-1]
        flow_model = flow_or_builtin(flow_model)

        h, w = everything[0].shape[-2:]
        if len(first) > 1:
            size = bounded_size(h, w, motion_side)
            load_models([flow_model], flow_memory(flow_model, *size))
        table = compare(
            clips,
            target,
            flow_model.model,
            longest_side=motion_side,
            borders=borders,
            progress=progress_bar(2 * (len(first) - 1) + len(clips)),
            check_cancelled=check_cancelled,
        )

        written = called if labels else None
        row = round(profile_line * (h - 1))
        panels = side_by_side([to_images(clip) for clip in clips.values()], written)
        profile = stacked(
            [drawn_out(temporal_profile(c, row=row)) for c in clips.values()], written
        )
        shown = on_node(table_picture(table.cells(), table.explanations()), table.to_text())
        return io.NodeOutput(panels, profile, table.to_text(), table.to_json(), ui=shown)


def clip_names(names: str, count: int) -> list[str]:
    """The first `count` names of a comma-separated list; InputError if too few or not distinct."""
    called = [name.strip() for name in names.split(",") if name.strip()][:count]
    if len(called) < count or len(set(called)) < count:
        raise InputError(
            f"Names '{names}': expected {count} different names, separated by commas, such as "
            "'input, upscaled, third'."
        )
    return called


def same_size(clips: list[Tensor]) -> list[Tensor]:
    """IMAGEs as (1, 3, t, h, w) in [-1, 1], ``alike``, enlarged (bicubic) to the largest size.

    Raises InputError as `video_frames` does, and for clips with different numbers of frames.
    """
    frames = [video_frames(clip) for clip in clips]
    counts = [clip.shape[2] for clip in frames]
    if len(set(counts)) > 1:
        raise InputError(
            f"The clips have {', '.join(map(str, counts))} frames: expected the same number. Cut "
            "them to the same frames ('Get Image or Mask Range From Batch' or the video loader)."
        )
    frames = alike(frames)
    h, w = max((clip.shape[-2:] for clip in frames), key=lambda size: size[0] * size[1])
    return [clip if clip.shape[-2:] == (h, w) else _resized(clip, h, w) for clip in frames]


def alike(clips: list[Tensor]) -> list[Tensor]:
    """The clips in fp32 on one device: in RAM, which holds more, unless all share another.

    ComfyUI's frames may be fp16 (--fp16-intermediates), in which a CPU cannot resize, and on
    different devices (--gpu-only). Clips that need no change are not copied.
    """
    devices = {clip.device for clip in clips}
    device = devices.pop() if len(devices) == 1 else torch.device("cpu")
    return [clip.to(device, torch.float32) for clip in clips]


def _resized(clip: Tensor, h: int, w: int) -> Tensor:
    result = clip.new_empty(*clip.shape[:3], h, w)
    for i in range(clip.shape[2]):
        check_cancelled()
        result[:, :, i] = F.interpolate(
            clip[:, :, i], (h, w), mode="bicubic", align_corners=False, antialias=True
        ).clamp(-1, 1)
    return result


def drawn_out(profile: Tensor) -> Tensor:
    """A profile (3, t, w) in [-1, 1] as IMAGE (1, h, w, 3), with lines repeated for visibility."""
    times = max(1, PROFILE_HEIGHT // profile.shape[1])
    return to_images(profile[None, :, None]).repeat_interleave(times, dim=1)
