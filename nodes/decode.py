"""Temporal VAE decode: latents and low-resolution frames to frames four times as large."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..uav_core.color import ColorMode
from ..uav_core.segments import DECODE_GROUP, plan_groups
from ..uav_core.tiles import OVERLAP as TILE_OVERLAP
from .inputs import check_same_clip, video_frames, video_latent
from .runtime import progress_bar
from .schema import ADVANCED, schema
from .vae import check_vae


class VAEDecode(io.ComfyNode):
    """Latent and frames -> frames four times as large."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoVAEDecode",
            "Temporal VAE Decode (Upscale-A-Video)",
            ("video vae decode", "decode video latent", "color fix"),
            description="Decodes the latent, guided by the low-resolution frames, to four times "
            "their size.",
            inputs=[
                io.Latent.Input("samples", tooltip="The sampled latent."),
                io.Vae.Input("vae", tooltip="From 'Load Temporal VAE'."),
                io.Image.Input("frames", tooltip="The same frames as in 'Low-Res Conditioning'."),
                io.Float.Input(
                    "lr_guidance",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How strongly the input frames guide vae_video: 1 as trained, 0 not "
                    "at all. vae_3d ignores it.",
                ),
                io.Int.Input(
                    "frames_per_group",
                    default=DECODE_GROUP,
                    min=1,
                    max=64,
                    tooltip="Frames decoded together. They share their normalisation, so the "
                    "result depends on it; 3 is the reference's, 1 takes the least memory.",
                ),
                io.Combo.Input(
                    "color_fix",
                    options=list(get_args(ColorMode)),
                    default="none",
                    tooltip="If colours drift from the input: adain matches their mean and "
                    "spread, wavelet takes the input's low frequencies.",
                ),
                io.Int.Input(
                    "tile",
                    default=0,
                    min=0,
                    max=4096,
                    step=8,
                    optional=True,
                    **ADVANCED,
                    tooltip="Side of the tiles that are decoded one by one and blended, in pixels "
                    "of the input; 0 for whole frames. 128 or more; smaller ones drift apart.",
                ),
                io.Int.Input(
                    "tile_overlap",
                    default=TILE_OVERLAP,
                    min=0,
                    max=512,
                    step=8,
                    optional=True,
                    **ADVANCED,
                    tooltip="Pixels of the input that neighbouring tiles share and fade over.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="The upscaled frames.")],
        )

    @classmethod
    def execute(
        cls,
        samples: dict[str, Any],
        vae: Any,
        frames: Tensor,
        lr_guidance: float,
        frames_per_group: int,
        color_fix: ColorMode,
        tile: int = 0,
        tile_overlap: int = TILE_OVERLAP,
    ) -> io.NodeOutput:
        latent, clip = video_latent(samples), video_frames(frames)
        check_same_clip("latent", tuple(latent.shape[2:]), tuple(clip.shape[2:]))
        check_vae(vae)
        groups = len(plan_groups(latent.shape[2], frames_per_group))
        images = vae.decode_video(
            latent,
            clip,
            w=lr_guidance,
            group=frames_per_group,
            color=color_fix,
            tile=tile,
            tile_overlap=tile_overlap,
            progress=progress_bar(groups),
        )
        return io.NodeOutput(images)
