"""Output sizes other than 4x: resizing before and after upscaling."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.frames.output_size import (
    WHEN,
    Aspect,
    OutputSize,
    SizePlan,
    Target,
    When,
    after,
    before,
    plan_size,
)
from ...uav_core.values import in_range
from ..base.runtime import check_cancelled
from ..base.schema import ADVANCED, for_page, schema

SizeSocket = io.Custom("UAV_OUTPUT_SIZE")
BEFORE, AFTER = WHEN["before"], WHEN["after"]
# Key in the input's definition: which inputs web/js/applies.js shows for each target.
APPLIES = "uav_applies"
USED: dict[Target, list[str]] = {
    "factor": ["factor"],
    "short side": ["short_side"],
    "exact size": ["width", "height", "aspect"],
}
ALIASES = ("upscale 2x", "resize video", "target resolution", "upscale to 1080p", "letterbox")


class SetOutputSize(io.ComfyNode):
    """Frames and a wanted size -> resized frames, and a plan for 'Finish Output Size'."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoOutputSize",
            "Output Size (Upscale-A-Video)",
            ALIASES,
            description="Gives any output size instead of 4x. Before upscaling, it shrinks the "
            "frames to save computation, and 'Finish Output Size' does the rest. After upscaling, "
            "it resizes the result and keeps all detail of the input.",
            inputs=[
                io.Image.Input(
                    "frames",
                    tooltip="The clip to upscale; for 'after upscaling', the upscaled frames. "
                    "Alpha is resized as well.",
                ),
                io.Combo.Input(
                    "use",
                    options=[BEFORE, AFTER],
                    tooltip="before: put this node first and 'Finish Output Size' last; 2x takes a "
                    "quarter of the time of 4x. after: put only this node, at the end.",
                ),
                *size_inputs("target", "Which of the values below sets the size.", 2.0),
                io.Boolean.Input(
                    "even",
                    default=True,
                    optional=True,
                    **ADVANCED,
                    tooltip="Round width and height to even numbers, as most video codecs require.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="frames",
                    tooltip="For 'Low-Res Conditioning', 'Flow-Guided Propagation' and 'Temporal "
                    "VAE Decode'; after upscaling, the finished frames.",
                ),
                SizeSocket.Output(display_name="plan", tooltip="For 'Finish Output Size'."),
                io.String.Output(display_name="sizes", tooltip="The frame size at each stage."),
            ],
        )

    @classmethod
    def execute(cls, frames: Tensor, use: str, **size: Any) -> io.NodeOutput:
        upscaled, wanted = when(use) == "after", OutputSize(**size)
        frames = checked_images(frames)
        plan = plan_size(frames.shape[1], frames.shape[2], wanted, upscaled=upscaled)
        work = after if upscaled else before
        return io.NodeOutput(work(frames, plan, check_cancelled), plan, plan.to_text())


class FinishOutputSize(io.ComfyNode):
    """Upscaled frames and a plan -> frames of the wanted size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoFinishOutputSize",
            "Finish Output Size (Upscale-A-Video)",
            ALIASES,
            description="Brings upscaled frames to the size set in 'Output Size': removes padding, "
            "resizes the frames and adds bars where needed.",
            inputs=[
                io.Image.Input("frames", tooltip="From 'Temporal VAE Decode' or 'Upscale Alpha'."),
                SizeSocket.Input("plan", tooltip="From 'Output Size'."),
            ],
            outputs=[io.Image.Output(tooltip="Frames of the chosen size.")],
        )

    @classmethod
    def execute(cls, frames: Tensor, plan: Any) -> io.NodeOutput:
        if not isinstance(plan, SizePlan):
            raise InputError(
                f"The plan is a {type(plan).__name__}: expected the plan from 'Output Size'."
            )
        return io.NodeOutput(after(checked_images(frames), plan, check_cancelled))


def size_inputs(target: str, tooltip: str, factor: float, **extra: Any) -> list[Any]:
    """The inputs for the wanted output size.

    The first is named ``target`` and has the ``tooltip``. ``factor`` is the default of the input
    'factor'. ``extra`` arguments are given to every input.
    """

    def side(name: str, default: int, tooltip: str) -> Any:
        return io.Int.Input(
            name, default=default, min=16, max=16384, step=2, tooltip=tooltip, **extra
        )

    def choice(name: str, options: tuple[str, ...], tooltip: str) -> Any:
        return io.Combo.Input(
            name, options=list(options), default=options[0], tooltip=tooltip, **extra
        )

    return [
        for_page(choice(target, get_args(Target), tooltip), **{APPLIES: USED}),
        io.Float.Input(
            "factor",
            default=factor,
            min=1.0,
            max=4.0,
            step=0.05,
            round=0.001,
            tooltip="Output size as a multiple of the clip's size, for 'factor'.",
            **extra,
        ),
        side(
            "short_side",
            1080,
            "Shorter side of the result in pixels, for 'short side'. The aspect ratio is kept.",
        ),
        side("width", 1920, "Width of the result in pixels, for 'exact size'."),
        side("height", 1080, "Height of the result in pixels, for 'exact size'."),
        choice(
            "aspect",
            get_args(Aspect),
            "Used if an exact size has another aspect ratio than the clip. fit: as large as fits "
            "inside. pad: the same with black bars. crop: fills the size and cuts off the edges. "
            "stretch: distorts.",
        ),
    ]


def when(use: str) -> When:
    """The ``When`` of a choice such as BEFORE or AFTER; InputError for other texts."""
    for value, words in WHEN.items():
        if use == words:
            return value
    raise InputError(f"Resizing is '{use}': expected '{BEFORE}' or '{AFTER}'.")


def checked_images(frames: Tensor) -> Tensor:
    """An IMAGE with any number of channels, checked by ``in_range``; InputError if it is none."""
    if frames.ndim != 4 or 0 in frames.shape:
        raise InputError(
            f"The frames arrived as {tuple(frames.shape)}: expected (frames, height, width, "
            "channels) with at least one frame."
        )
    return in_range(frames, "frames")
