"""Enlarges the alpha of the input to the size of the upscaled frames."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.frames.alpha import upscale_alpha
from ...uav_core.values import in_range
from ..base.runtime import check_cancelled, progress_bar
from ..base.schema import schema


class UpscaleAlpha(io.ComfyNode):
    """Mask or RGBA frames, and upscaled frames -> RGBA frames and mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoAlpha",
            "Upscale Alpha (Upscale-A-Video)",
            ("transparency", "rgba", "matte", "upscale mask", "guided filter"),
            description="Enlarges the alpha of a clip to the size of its upscaled frames, with its "
            "edges along theirs, and combines the two. Upscale the colours from 'Split Image with "
            "Alpha'.",
            inputs=[
                io.MultiType.Input(
                    "alpha",
                    [io.Mask, io.Image],
                    tooltip="The mask from 'Split Image with Alpha' (1 is transparent), or the "
                    "RGBA frames themselves. A single mask is used for all frames.",
                ),
                io.Image.Input(
                    "frames", tooltip="The upscaled frames, from 'Temporal VAE Decode'."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="rgba", tooltip="The upscaled frames with alpha."),
                io.Mask.Output(display_name="mask", tooltip="The mask alone; 1 is transparent."),
            ],
        )

    @classmethod
    def execute(cls, alpha: Tensor, frames: Tensor) -> io.NodeOutput:
        known, frames = opacity(in_range(alpha, "mask")), in_range(frames, "frames")
        if len(known) == 1:
            known = known.expand(len(frames), -1, -1)
        large = upscale_alpha(
            known, frames, progress=progress_bar(len(frames)), check_cancelled=check_cancelled
        )
        return io.NodeOutput(torch.cat([frames[..., :3], large[..., None]], dim=-1), 1 - large)


def opacity(alpha: Tensor) -> Tensor:
    """Alpha (t, h, w) of a MASK, in which 1 is transparent, or of RGBA frames.

    Raises InputError for frames without alpha.
    """
    if alpha.ndim in (2, 3):
        return 1 - (alpha if alpha.ndim == 3 else alpha[None])
    if alpha.ndim == 4 and alpha.shape[3] == 4:
        return alpha[..., 3]
    raise InputError(
        f"Alpha arrived as {tuple(alpha.shape)}: expected a mask (frames, height, width) or RGBA "
        "frames (frames, height, width, 4). For frames without alpha, leave 'Upscale Alpha' out."
    )
