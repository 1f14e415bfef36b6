"""Flow-guided propagation between sampling steps, which keeps the clip coherent over time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...uav_core.callbacks import Progress, ignore
from ...uav_core.devices.memory import Sparing, spares
from ...uav_core.errors import InputError
from ...uav_core.flow.builtin import BuiltinFlow
from ...uav_core.flow.estimate import bounded_size, estimate_flows
from ...uav_core.sampling.ladder import Setting, StepDown, flow_ladder
from ...uav_core.sampling.propagation import PropagationParams, parse_steps, propagate
from ..base import settings
from ..base.inputs import check_same_clip, video_frames
from ..base.runtime import check_cancelled, load_models, progress_bar, stepping_down
from ..base.schema import OpticalFlow, PropagationSocket, schema
from ..loaders.load import flow_patcher

# For one direction of a pair: the tensors that the built-in estimator holds, and a quarter more.
BUILTIN_BYTES_PER_PIXEL = 625


@dataclass(eq=False)
class FlowPropagation:
    """The settings of propagation, and the flow it needs.

    The flow is estimated when a sampler first asks for it, so that wrong settings are refused
    before any model runs. It is then kept for further runs on the same frames.
    """

    flow_model: Any
    frames: Tensor = field(repr=False)
    """(1, 3, t, h, w) in [-1, 1]."""
    steps_text: str
    params: PropagationParams
    iterations: int = settings.DEFAULT_ITERATIONS
    flows: tuple[Tensor, Tensor] | None = field(default=None, repr=False)
    """Forward and backward, (1, 2, t - 1, h, w) in pixels; None until estimated."""

    def steps(self, run: int) -> tuple[int, ...]:
        """The 0-based steps to propagate in a run of ``run`` steps; InputError if outside it."""
        return parse_steps(self.steps_text, run)

    def check_clip(self, latent: Tensor) -> None:
        check_same_clip("latent", tuple(latent.shape[2:]), tuple(self.frames.shape[2:]))

    def estimate(
        self,
        progress: Progress | None = None,
        on_step: Callable[[StepDown], None] = ignore,
    ) -> tuple[Tensor, Tensor]:
        """The flows, estimated on the first call; arguments as in ``flows_of``."""
        if self.flows is None:
            self.flows = flows_of(self.flow_model, self.frames, self.iterations, progress, on_step)
        return self.flows

    def apply(self, x0: Tensor) -> Tensor:
        """Propagate a predicted clean latent (1, 4, t, h, w)."""
        if x0.shape[2] == 1:
            return x0
        forward, backward = (flow.to(x0) for flow in self.estimate())
        return propagate(x0, forward, backward, self.params)


def check_flow_model(flow_model: Any) -> None:
    """Raise InputError unless this OPTICAL_FLOW holds RAFT or the built-in estimator."""
    model = getattr(flow_model, "model", None)
    if not isinstance(model, BuiltinFlow) and not hasattr(model, "feature_encoder"):
        raise InputError(
            "The flow model is not a RAFT network, nor the built-in one: expected the output of "
            "'Load Flow Model' or of ComfyUI's 'Load Optical Flow Model'."
        )


def flow_input() -> Any:
    """Optional input of an OPTICAL_FLOW."""
    return OpticalFlow.Input(
        "flow_model",
        optional=True,
        tooltip="From 'Load Flow Model'. If unconnected, the built-in model is used.",
    )


def flow_or_builtin(flow_model: Any) -> Any:
    """``flow_model``, or the built-in estimator if None. Raises as ``check_flow_model``."""
    if flow_model is None:
        return flow_patcher(BuiltinFlow())
    check_flow_model(flow_model)
    return flow_model


def flows_of(
    flow_model: Any,
    frames: Tensor,
    iterations: int = settings.DEFAULT_ITERATIONS,
    progress: Progress | None = None,
    on_step: Callable[[StepDown], None] = ignore,
) -> tuple[Tensor, Tensor]:
    """``estimate_flows`` of an OPTICAL_FLOW, with cancel.

    ``progress`` replaces the progress bar of this call. If memory runs out, less is computed at
    once, then smaller frames are taken; ``on_step`` is called with each step down.
    """
    t, h, w = frames.shape[2:]

    def work(setting: Setting) -> tuple[Tensor, Tensor]:
        side = setting.longest_side
        load_models([flow_model], flow_memory(flow_model, *bounded_size(h, w, side)))
        bar = progress or progress_bar(max(2 * (t - 1), 1))
        return estimate_flows(flow_model.model, frames, iterations, bar, check_cancelled, side)

    return stepping_down(work, flow_ladder(h, w), on_step)


def flow_memory(flow_model: Any, h: int, w: int) -> int:
    """Bytes that a flow model needs for a pair of frames of (h, w), without its weights."""
    if isinstance(flow_model.model, BuiltinFlow):
        directions = 1 if spares(Sparing.HALVES) else 2
        return h * w * BUILTIN_BYTES_PER_PIXEL * directions
    # RAFT: all-pairs correlation at 1/8 of the size and its pyramid (4/3), in fp32, held twice
    # while it is built; and the encoders' feature maps.
    positions = max(h, 128) * max(w, 128) / 64
    return int(2 * 4 / 3 * 4 * positions**2 + 2500 * positions * 64 / 8)


class Propagation(io.ComfyNode):
    """Flow model and frames -> the propagation for a sampler."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoPropagation",
            "Flow-Guided Propagation (Upscale-A-Video)",
            ("temporal consistency", "flicker", "deflicker", "optical flow propagation"),
            description="Reduces flicker: at some sampling steps, it carries the model's "
            "prediction from frame to frame along the motion.",
            inputs=[
                OpticalFlow.Input(
                    "flow_model",
                    tooltip="From 'Load Flow Model', or ComfyUI's own 'Load Optical Flow Model'.",
                ),
                io.Image.Input("frames", tooltip="The same frames as in 'Low-Res Conditioning'."),
                io.String.Input(
                    "steps",
                    default="24,26,28",
                    tooltip="Sampling steps, counted from 0, after which to propagate, such as "
                    "'24,26,28', '20-24', '80%-95%' or 'last 3'. A few late steps work best. "
                    "Empty: no propagation.",
                ),
                settings.strength_input(
                    "strength",
                    "How much of the neighbouring frame is mixed in where the motion is reliable. "
                    "The paper uses 0.5; higher values are steadier and softer.",
                ),
                settings.relative_threshold_input(
                    "Motion is reliable if its squared forward-backward error is below this share "
                    "of the squared motion plus the absolute threshold."
                ),
                settings.absolute_threshold_input(
                    "Squared error, in squared low-resolution pixels, that is always tolerated. "
                    "Higher values accept more motion and risk ghosting."
                ),
                settings.flow_iterations_input(
                    "Number of refinements of the optical flow. Fewer are faster and less exact."
                ),
            ],
            outputs=[
                PropagationSocket.Output(
                    display_name="propagation", tooltip="For 'Segment Sampler' or 'Sampler'."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        flow_model: Any,
        frames: Tensor,
        steps: str,
        strength: float,
        relative_threshold: float,
        absolute_threshold: float,
        flow_iterations: int = settings.DEFAULT_ITERATIONS,
    ) -> io.NodeOutput:
        parse_steps(steps)
        check_flow_model(flow_model)
        params = PropagationParams(strength, relative_threshold, absolute_threshold)
        clip = video_frames(frames)
        return io.NodeOutput(FlowPropagation(flow_model, clip, steps, params, flow_iterations))
