"""Pictures of motion, of the difference of two clips, and of before and after."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...uav_core.metrics import difference, divided, flow_picture, longest_motion, validity
from ...uav_core.sampling.propagation import PropagationParams
from ..base.inputs import to_images, video_frames
from ..base.schema import LOOK, schema
from ..base.settings import (
    DEFAULT_ITERATIONS,
    absolute_threshold_input,
    flow_iterations_input,
    number,
    relative_threshold_input,
)
from ..sampling.propagate import flow_input, flow_or_builtin, flows_of
from .compare import clip_names, same_size
from .panels import middle, on_node, side_by_side


class ShowFlow(io.ComfyNode):
    """Frames -> their motion in colours, and a mask of where it is trusted."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoShowFlow",
            "Show Flow (Upscale-A-Video)",
            ("optical flow", "motion vectors", "flow visualization", "validity mask"),
            category=LOOK,
            description="Shows the motion that propagation follows, and where it is trusted. Hue "
            "shows the direction, colour strength the distance; white is no motion.",
            is_output_node=True,
            inputs=[
                io.Image.Input("frames", tooltip="The clip to upscale, two frames or more."),
                flow_input(),
                relative_threshold_input("As in 'Flow-Guided Propagation'.", optional=True),
                absolute_threshold_input("As in 'Flow-Guided Propagation'.", optional=True),
                flow_iterations_input("As in 'Flow-Guided Propagation'.", optional=True),
            ],
            outputs=[
                io.Image.Output(
                    display_name="picture",
                    tooltip="For every frame but the last: the frame, its motion to the next "
                    "frame, and where the motion is trusted (white).",
                ),
                io.Image.Output(display_name="flow", tooltip="The motion alone."),
                io.Mask.Output(
                    display_name="trusted", tooltip="1 where propagation uses the next frame."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        frames: Tensor,
        relative_threshold: float = PropagationParams.relative_threshold,
        absolute_threshold: float = PropagationParams.absolute_threshold,
        flow_iterations: int = DEFAULT_ITERATIONS,
        flow_model: Any = None,
    ) -> io.NodeOutput:
        clip = video_frames(frames)
        flow_model = flow_or_builtin(flow_model)
        pairs = clip.shape[2] - 1
        if pairs == 0:
            # A single frame is paired with itself: no motion, trusted everywhere.
            clip, pairs = clip.repeat(1, 1, 2, 1, 1), 1
        forward, backward = flows_of(flow_model, clip, flow_iterations)
        params = PropagationParams(
            relative_threshold=relative_threshold, absolute_threshold=absolute_threshold
        )
        trusted = validity(forward, backward, params).float()
        longest = longest_motion(forward)
        flow = to_images(flow_picture(forward, longest))
        white = to_images(trusted.mul(2).sub(1).expand(-1, 3, -1, -1, -1))
        share = float(trusted.mean())
        picture = side_by_side(
            [frames[:pairs], flow, white],
            ["frame", f"motion, up to {longest:.1f} px", f"trusted: {share:.0%}"],
        )
        return io.NodeOutput(picture, flow, trusted[0, 0], ui=on_node(middle(picture)))


class ShowDifference(io.ComfyNode):
    """Two versions of a clip -> their difference."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoShowDifference",
            "Show Difference (Upscale-A-Video)",
            ("image difference", "propagation on off", "diff", "amplify difference"),
            category=LOOK,
            description="Shows the difference between two versions of a clip, for example with and "
            "without propagation. The factor by which it is brightened is written above.",
            is_output_node=True,
            inputs=[
                io.Image.Input("first", tooltip="The first version."),
                io.Image.Input(
                    "second",
                    tooltip="The second version, with the same number of frames. The smaller one "
                    "is enlarged (bicubic).",
                ),
                io.Float.Input(
                    "factor",
                    default=0.0,
                    min=0.0,
                    max=1000.0,
                    step=1.0,
                    tooltip="How much the difference is brightened. 0 chooses a factor from 1 to "
                    "100 so that almost nothing is clipped. Set a fixed factor to compare several "
                    "differences.",
                ),
                io.String.Input(
                    "names",
                    default="first, second",
                    tooltip="Names of the two versions, separated by a comma.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="side by side", tooltip="Both versions and their difference."
                ),
                io.Image.Output(display_name="difference", tooltip="The difference alone."),
            ],
        )

    @classmethod
    def execute(cls, first: Tensor, second: Tensor, factor: float, names: str) -> io.NodeOutput:
        called = clip_names(names, 2)
        clips = same_size([first, second])
        apart, chosen = difference(clips[0], clips[1], factor if factor > 0 else None)
        pictures = [to_images(clip) for clip in (*clips, apart)]
        label = f"difference x {chosen:g}"
        panels = side_by_side(pictures, [*called, label])
        alone = side_by_side(pictures[2:], [label])
        return io.NodeOutput(panels, alone, ui=on_node(middle(panels)))


class ShowBeforeAfter(io.ComfyNode):
    """Two versions of a clip -> one picture of both, divided by a line."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoBeforeAfter",
            "Show Before and After (Upscale-A-Video)",
            ("split view", "wipe", "compare slider", "before after"),
            category=LOOK,
            description="Shows the left part of one clip and the right part of another, with a "
            "line between them, as a video to save or a picture to share. To move the line with "
            "the mouse, use ComfyUI's own 'Compare Images', if your version has it.",
            is_output_node=True,
            inputs=[
                io.Image.Input("before", tooltip="Shown on the left, for example the input."),
                io.Image.Input(
                    "after",
                    tooltip="Shown on the right, with the same number of frames. The smaller one "
                    "is enlarged (bicubic).",
                ),
                number(
                    "position", 0.5, 0.0, 1.0, "Position of the line: 0 left, 1 right.", step=0.01
                ),
            ],
            outputs=[io.Image.Output(tooltip="The frames, divided by the line.")],
        )

    @classmethod
    def execute(cls, before: Tensor, after: Tensor, position: float) -> io.NodeOutput:
        clips = same_size([before, after])
        line = max(2, clips[0].shape[-1] // 320)
        picture = to_images(divided(*clips, position=position, line=line))
        return io.NodeOutput(picture, ui=on_node(middle(picture)))
