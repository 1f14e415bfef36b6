"""Upscale a video with one node, which runs the other nodes inside."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ...uav_core.sampling import presets
from ..base.schema import ADVANCED, MAIN_SEARCH, schema, set_up
from ..base.settings import detail_input, seed_input
from ..loaders.load import LoadAll, weights_input
from .upscale import LongVideoOptions, UpscaleLongVideo, prefix_input

SIZES: dict[str, dict[str, Any]] = {
    **{f"{factor}x": {"output_size": "factor", "factor": float(factor)} for factor in (4, 3, 2)},
    **{
        f"{lines}p": {"output_size": "short side", "short_side": lines}
        for lines in (720, 1080, 1440, 2160)
    },
}
"""Choices of ``size``, as values for inputs of 'Options for Long Video'."""


class UpscaleVideo(io.ComfyNode):
    """VIDEO -> VIDEO, by 'Load Upscale-A-Video' and 'Upscale Long Video' inside.

    ComfyUI runs these as separate nodes, so that the loaded models are kept for the next run.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoUpscale",
            "Upscale Video (Upscale-A-Video)",
            (*MAIN_SEARCH, "upscale video", "video to video"),
            description="Upscales a video of any length and keeps its sound. Loads the models and "
            "chooses their settings itself. Finished parts are kept on disk: after a crash or a "
            "cancel, queue the same again to continue. The finished file is in the output folder.",
            is_output_node=True,
            enable_expand=True,
            inputs=[
                io.Video.Input(
                    "video",
                    tooltip="From 'Load Video', or any other node with a VIDEO output.",
                    # Passed on as a link, so that the nodes inside are not run again for the
                    # same video.
                    extra_dict={"rawLink": True},
                ),
                io.Combo.Input(
                    "quality",
                    options=list(presets.SPEEDS[presets.INCLUDED]),
                    default=presets.BALANCED,
                    tooltip="draft is fastest, but its result is less steady. best takes longer: "
                    "with the included weights it is steadier and closer to the original.",
                ),
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default="4x",
                    tooltip="Output size: a multiple of the input size, or the shorter side in "
                    "pixels. It must be 1 to 4 times the input size.",
                ),
                io.Combo.Input(
                    "look",
                    options=list(presets.LOOKS[presets.INCLUDED]),
                    default=presets.BALANCED,
                    tooltip="faithful stays closest to the input; creative adds the most detail.",
                ),
                weights_input(**ADVANCED),
                io.String.Input(
                    "text",
                    default=presets.QUALITY,
                    **ADVANCED,
                    tooltip="What the video shows. Only the authors' weights use it; the included "
                    "ones ignore it.",
                ),
                seed_input("Seed of all noise.", **ADVANCED),
                prefix_input(**ADVANCED),
                detail_input("How much of the upscaled result is kept."),
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
        video: Any,
        quality: str,
        size: str,
        look: str,
        weights: str,
        text: str,
        **given: Any,
    ) -> io.NodeOutput:
        """``given``: inputs of 'Upscale Long Video' that this node has too."""
        preset = presets.settings(weights, look, quality)
        values = {**preset, **presets.FIXED[weights], **SIZES[size], **given}
        graph = GraphBuilder()
        models = graph.node(
            LoadAll.define_schema().node_id, **set_up(LoadAll, {"weights": weights})
        )
        unet, vae, clip, flow = (models.out(slot) for slot in range(4))
        positive, negative = (
            graph.node("CLIPTextEncode", text=words, clip=clip).out(0)
            for words in (text, presets.FLAWS)
        )
        options = graph.node(
            LongVideoOptions.define_schema().node_id, **set_up(LongVideoOptions, values)
        )
        result = graph.node(
            UpscaleLongVideo.define_schema().node_id,
            model=unet,
            vae=vae,
            video=video,
            positive=positive,
            negative=negative,
            flow_model=flow,
            options=options.out(0),
            **set_up(UpscaleLongVideo, values),
        )
        return io.NodeOutput(result.out(0), result.out(1), expand=graph.finalize())
