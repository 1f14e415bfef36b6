"""Temporal VAE decode: latents and low-resolution frames to frames four times as large."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ...uav_core.frames.color import ColorMode
from ...uav_core.sampling.segments import plan_groups
from ...uav_core.sampling.tiles import OVERLAP as TILE_OVERLAP
from ..base import settings
from ..base.inputs import check_same_clip, video_frames, video_latent
from ..base.runtime import progress_bar, show_status
from ..base.schema import ADVANCED, schema
from ..base.summary import RunSummary
from ..model.vae import check_vae


class VAEDecode(io.ComfyNode):
    """Latent and frames -> frames four times as large."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoVAEDecode",
            "Temporal VAE Decode (Upscale-A-Video)",
            ("video vae decode", "decode video latent", "color fix"),
            description="Decodes the latent to frames four times as large, guided by the "
            "low-resolution frames.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Latent.Input("samples", tooltip="The sampled latent."),
                io.Vae.Input("vae", tooltip="From 'Load Temporal VAE'."),
                io.Image.Input("frames", tooltip="The same frames as in 'Low-Res Conditioning'."),
                settings.lr_guidance_input(
                    "How strongly the input frames guide vae_video: 1 is as trained, 0 is no "
                    "guidance. vae_3d ignores it."
                ),
                settings.frames_per_group_input(
                    "Number of frames decoded together. They share their normalisation, so this "
                    "changes the result. The reference uses 3; 1 takes the least memory."
                ),
                settings.color_fix_input(
                    "Corrects colours that drift from the input. adain matches their mean and "
                    "spread; wavelet uses the input's low frequencies."
                ),
                settings.tile_input(
                    "Size of the tiles that are decoded one by one and blended, in pixels of the "
                    "input; 0: whole frames. Use 128 or more: smaller tiles differ in colour.",
                    optional=True,
                    **ADVANCED,
                ),
                settings.tile_overlap_input("tile_overlap", optional=True, **ADVANCED),
                settings.self_ensemble_input(
                    "Decodes four times, with the frames mirrored, and takes the mean (also called "
                    "TTA): steadier and closer to the original, but four times as long. Measured "
                    "with the included weights only."
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
        self_ensemble: bool = False,
    ) -> io.NodeOutput:
        latent, clip = video_latent(samples), video_frames(frames)
        check_same_clip("latent", tuple(latent.shape[2:]), tuple(clip.shape[2:]))
        check_vae(vae)
        groups = len(plan_groups(latent.shape[2], frames_per_group))
        summary = RunSummary()
        images = vae.decode_video(
            latent,
            clip,
            w=lr_guidance,
            group=frames_per_group,
            color=color_fix,
            tile=tile,
            tile_overlap=tile_overlap,
            self_ensemble=self_ensemble,
            progress=progress_bar(groups),
            on_step=summary.steps.append,
        )
        show_status(cls, summary.to_text("Decoded", len(images)))
        return io.NodeOutput(images)
