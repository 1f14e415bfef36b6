"""Low-resolution conditioning: the noised frames and the text that the U-Net sees."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.sampling import schedule
from ...uav_core.sampling.noise import LOW_RES as LOW_RES_STREAM
from ...uav_core.sampling.noise import frame_noise
from ..base import settings
from ..base.inputs import video_frames
from ..base.schema import schema
from ..model.unet import LOW_RES, NOISE_LEVEL, NULL_TEXT

Conditioning = list[list[Any]]


class LowResConditioning(io.ComfyNode):
    """Frames, texts and noise level -> conditioning and an empty latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoConditioning",
            "Low-Res Conditioning (Upscale-A-Video)",
            ("low resolution conditioning", "noise level", "upscale conditioning"),
            description="Adds noise to the frames, combines them with the text, and creates the "
            "empty latent for the sampler.",
            inputs=[
                io.Image.Input(
                    "frames", tooltip="The clip to upscale: RGB, at least 16 px on each side."
                ),
                settings.noise_level_input(
                    "How much noise is added to the frames. Low values stay faithful to the input; "
                    "high values let the model invent more detail and repair more damage."
                ),
                settings.seed_input("Seed of the noise added to the frames."),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="Encoded text: what the clip shows, ending in 'best quality, extremely "
                    "detailed'. Not needed if the U-Net includes its own empty text.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Encoded text: what to avoid, for example 'blur, worst quality'. Not "
                    "needed if the U-Net includes its own empty text.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="positive", tooltip="Text and frames, for the sampler."
                ),
                io.Conditioning.Output(
                    display_name="negative", tooltip="Negative text and the same frames."
                ),
                io.Latent.Output(display_name="latent", tooltip="Empty latent of the clip's size."),
            ],
        )

    @classmethod
    def execute(
        cls,
        frames: Tensor,
        noise_level: int,
        seed: int,
        positive: Conditioning | None = None,
        negative: Conditioning | None = None,
    ) -> io.NodeOutput:
        schedule.check_noise_level(noise_level)
        clip = video_frames(frames)
        t, h, w = clip.shape[2:]
        # Both texts and all steps use the same noised frames, as in training.
        noise = frame_noise(seed, LOW_RES_STREAM, range(t), 3, h, w)
        low_res = schedule.noise_low_res(clip, noise.to(clip), noise_level)
        latent = torch.zeros((1, 4, t, h, w))
        return io.NodeOutput(
            condition(positive, low_res, noise_level),
            condition(negative, low_res, noise_level),
            {"samples": latent},
        )


def condition(text: Conditioning | None, low_res: Tensor, noise_level: int) -> Conditioning:
    """``text`` with the noised frames and their noise level; None is the empty text."""
    extra = {LOW_RES: low_res, NOISE_LEVEL: noise_level}
    if text is None:
        # ComfyUI needs a tensor here; the model replaces it by its own embedding.
        return [[torch.zeros((1, 1, 1)), {**extra, NULL_TEXT: True}]]
    return [[embedding, {**options, **extra}] for embedding, options in text]
