"""Inputs that several nodes share, each with one default and one range.

Each function takes the tooltip, and extra arguments of the input such as ``optional``.
"""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

from comfy_api.latest import io

from ...uav_core.frames.color import ColorMode
from ...uav_core.frames.detail import FULL, MOST
from ...uav_core.sampling import schedule
from ...uav_core.sampling.segments import DECODE_GROUP, OVERLAP, SEGMENT_LENGTH
from ...uav_core.sampling.tiles import OVERLAP as TILE_OVERLAP
from .schema import ADVANCED

DEFAULT_STEPS = 30
DEFAULT_GUIDANCE = 6.0
DEFAULT_ITERATIONS = 20


def number(name: str, default: float, least: float, most: float, tooltip: str, **extra: Any) -> Any:
    """A number input with its range; an Int if the default is an int, else a Float."""
    kind: Any = io.Int if isinstance(default, int) else io.Float
    return kind.Input(name, default=default, min=least, max=most, tooltip=tooltip, **extra)


noise_level_input = partial(
    number, "noise_level", schedule.DEFAULT_NOISE_LEVEL, 0, schedule.MAX_NOISE_LEVEL
)
steps_input = partial(number, "steps", DEFAULT_STEPS, 1, schedule.TRAIN_STEPS - 1)
guidance_input = partial(number, "guidance", DEFAULT_GUIDANCE, 1.0, 30.0, step=0.1, round=0.01)
segment_length_input = partial(number, "segment_length", SEGMENT_LENGTH, 1, 64)
overlap_input = partial(number, "overlap", OVERLAP, 0, 63)
relative_threshold_input = partial(
    number, "relative_threshold", 0.001, 0.0, 1.0, step=0.001, round=0.0001, **ADVANCED
)
absolute_threshold_input = partial(
    number, "absolute_threshold", 0.05, 0.0, 100.0, step=0.01, **ADVANCED
)
flow_iterations_input = partial(number, "flow_iterations", DEFAULT_ITERATIONS, 1, 64, **ADVANCED)
lr_guidance_input = partial(number, "lr_guidance", 1.0, 0.0, 1.0, step=0.05)
frames_per_group_input = partial(number, "frames_per_group", DECODE_GROUP, 1, 64)
# The usual seed, with the control that changes it after every run.
seed_input = partial(number, "seed", 0, 0, 0xFFFFFFFFFFFFFFFF, control_after_generate=True)
tile_input = partial(number, "tile", 0, 0, 4096, step=8)


def strength_input(name: str, tooltip: str) -> Any:
    """Input for the strength of propagation."""
    return number(name, 0.5, 0.0, 1.0, tooltip, step=0.05)


def share_input(name: str, default: float, tooltip: str) -> Any:
    """Input for a point of the run, from 0 (its start) to 1 (its end)."""
    return number(
        name, default, 0.0, 1.0, tooltip, step=0.05, round=0.001, optional=True, **ADVANCED
    )


def tile_overlap_input(name: str, **extra: Any) -> Any:
    """Input for the overlap of neighbouring tiles."""
    tooltip = "Overlap of neighbouring tiles, in pixels of the input. The tiles are blended there."
    return number(name, TILE_OVERLAP, 0, 512, tooltip, step=8, **extra)


def color_fix_input(tooltip: str) -> Any:
    """Input for the colour fix."""
    return io.Combo.Input(
        "color_fix", options=list(get_args(ColorMode)), default="none", tooltip=tooltip
    )


def self_ensemble_input(tooltip: str, **extra: Any) -> Any:
    """Input for decoding with a self-ensemble. Optional, so that workflows before it still run."""
    return io.Boolean.Input("self_ensemble", default=False, tooltip=tooltip, optional=True, **extra)


def detail_input(tooltip: str) -> Any:
    """Input for the detail to keep. Optional, so that workflows made before it still run."""
    tooltip = (
        f"{tooltip} 0: a plain bicubic enlargement. 0.5: adds only detail that is finer than the "
        "input, and changes nothing that the input shows. 1: the full result. Above 1: "
        "sharper. 0.6 suits clean input, such as generated video."
    )
    slider = io.NumberDisplay.slider
    return number("detail", FULL, 0.0, MOST, tooltip, step=0.05, optional=True, display_mode=slider)
