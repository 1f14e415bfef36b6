"""Sets, after the run, how much detail of an upscaled clip is kept."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.frames.detail import FULL, check_detail, with_detail
from ...uav_core.models.vae import UPSCALE
from ..base.inputs import checked_frames, to_images, video_frames
from ..base.runtime import check_cancelled, progress_bar
from ..base.schema import schema
from ..base.settings import detail_input


class Detail(io.ComfyNode):
    """Upscaled frames and the input -> the upscaled frames with some of their detail.

    A separate node, so that ComfyUI reuses the decoded frames when only the value changes.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoDetail",
            "Detail (Upscale-A-Video)",
            ("strength", "blend", "fidelity", "mix with bicubic", "sharpness"),
            description="Sets how much detail of the upscaled frames is kept. It works after the "
            "run: nothing is sampled or decoded again.",
            inputs=[
                io.Image.Input(
                    "upscaled", tooltip="The upscaled frames, from 'Temporal VAE Decode'."
                ),
                io.Image.Input("frames", tooltip="The same frames as in 'Low-Res Conditioning'."),
                detail_input("How much of the upscaled frames is kept."),
            ],
            outputs=[
                io.Image.Output(tooltip="The upscaled frames with the chosen amount of detail.")
            ],
        )

    @classmethod
    def execute(cls, upscaled: Tensor, frames: Tensor, detail: float = FULL) -> io.NodeOutput:
        check_detail(detail)
        large, small = checked_frames(upscaled), checked_frames(frames)
        t, h, w = small.shape[:3]
        if large.shape[:3] != (t, UPSCALE * h, UPSCALE * w):
            raise InputError(
                f"The upscaled clip is {large.shape[2]}x{large.shape[1]} with {len(large)} "
                f"frames, the input is {w}x{h} with {t}: expected the same number of frames, four "
                "times as large as the input. Connect the result of 'Temporal VAE Decode' and the "
                "same frames as there, and put 'Finish Output Size' after this node."
            )
        if detail == FULL:
            return io.NodeOutput(upscaled)
        result, progress = torch.empty_like(large), progress_bar(t)
        for i in range(t):
            check_cancelled()
            pixels, low_res = (video_frames(images[i : i + 1]) for images in (large, small))
            result[i] = to_images(with_detail(pixels, low_res, detail))[0]
            progress(i + 1, t)
        return io.NodeOutput(result)
