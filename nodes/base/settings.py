"""Settings that several nodes have, each with one default and one range.

``extra`` is what a node adds: ``optional``, or what folds the input away.
"""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io

from ...uav_core.frames.color import ColorMode
from ...uav_core.frames.detail import FULL
from ...uav_core.sampling import schedule
from ...uav_core.sampling.segments import DECODE_GROUP, OVERLAP, SEGMENT_LENGTH
from ...uav_core.sampling.tiles import OVERLAP as TILE_OVERLAP

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 6.0


def noise_level_input(tooltip: str) -> Any:
    """How much noise is put on the frames."""
    return io.Int.Input(
        "noise_level",
        default=schedule.DEFAULT_NOISE_LEVEL,
        min=0,
        max=schedule.MAX_NOISE_LEVEL,
        tooltip=tooltip,
    )


def steps_input(tooltip: str) -> Any:
    """Sampling steps."""
    return io.Int.Input(
        "steps", default=DEFAULT_STEPS, min=1, max=schedule.TRAIN_STEPS - 1, tooltip=tooltip
    )


def guidance_input(tooltip: str) -> Any:
    """Classifier-free guidance."""
    return io.Float.Input(
        "guidance",
        default=DEFAULT_GUIDANCE,
        min=1.0,
        max=30.0,
        step=0.1,
        round=0.01,
        tooltip=tooltip,
    )


def segment_length_input(tooltip: str, **extra: Any) -> Any:
    """Frames of a segment."""
    return io.Int.Input(
        "segment_length", default=SEGMENT_LENGTH, min=1, max=64, tooltip=tooltip, **extra
    )


def overlap_input(tooltip: str, **extra: Any) -> Any:
    """Frames that segments share."""
    return io.Int.Input("overlap", default=OVERLAP, min=0, max=63, tooltip=tooltip, **extra)


def strength_input(name: str, tooltip: str) -> Any:
    """Strength of propagation."""
    return io.Float.Input(name, default=0.5, min=0.0, max=1.0, step=0.05, tooltip=tooltip)


def lr_guidance_input(tooltip: str, **extra: Any) -> Any:
    """Weight of the input frames in the decoder."""
    return io.Float.Input(
        "lr_guidance", default=1.0, min=0.0, max=1.0, step=0.05, tooltip=tooltip, **extra
    )


def frames_per_group_input(tooltip: str, **extra: Any) -> Any:
    """Frames decoded together."""
    return io.Int.Input(
        "frames_per_group", default=DECODE_GROUP, min=1, max=64, tooltip=tooltip, **extra
    )


def color_fix_input(tooltip: str) -> Any:
    """What becomes of the colours."""
    return io.Combo.Input(
        "color_fix", options=list(get_args(ColorMode)), default="none", tooltip=tooltip
    )


def detail_input(tooltip: str) -> Any:
    """How much of the upscaled frames is kept. Optional: workflows from before it go on."""
    return io.Float.Input(
        "detail",
        default=FULL,
        min=0.0,
        max=FULL,
        step=0.05,
        optional=True,
        display_mode=io.NumberDisplay.slider,
        tooltip=f"{tooltip} 0: a plain enlargement (bicubic). 0.5: what is finer than the input "
        "can hold is added, and nothing that it shows is changed. 1: all of the result.",
    )


def tile_input(tooltip: str, **extra: Any) -> Any:
    """Side of a tile; 0 for whole frames."""
    return io.Int.Input("tile", default=0, min=0, max=4096, step=8, tooltip=tooltip, **extra)


def tile_overlap_input(name: str, **extra: Any) -> Any:
    """What tiles share."""
    return io.Int.Input(
        name,
        default=TILE_OVERLAP,
        min=0,
        max=512,
        step=8,
        tooltip="Pixels of the input that neighbouring tiles share and fade over.",
        **extra,
    )
