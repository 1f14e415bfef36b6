"""The five stages of an upscale as parts of a workflow: each puts its nodes where it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.workflows.forms import Graph, Out
from scripts.workflows.presets import INCLUDED, SETTINGS, Preset
from uav_core.sampling.presets import FLAWS, QUALITY

SAMPLE = "upscale_a_video_sample.mp4"
SET = ("noise_level", "guidance", "steps", "propagation_steps", "propagation_strength")
"""What the node Settings gives, in its order."""
SHOWS, AVOID = "What the clip shows (positive prompt)", "What to avoid (negative prompt)"

Position = tuple[int, int]


@dataclass(frozen=True)
class Models:
    """What the four loaders give."""

    unet: Out
    vae: Out
    flow: Out | None
    clip: Out


class Stages(Graph):
    """A workflow whose nodes start with a preset's values, or take them from `settings`."""

    def __init__(self, preset: Preset = INCLUDED) -> None:
        super().__init__()
        self.preset = preset
        self.shared: dict[str, Out] = {}

    def put(self, type: str, pos: Position, size: tuple[int, int], /, **inputs: Any) -> Out:
        """Add a node, a given input before the preset's; its first output."""
        return Out(self.add(type, pos, size, **{**self.preset.get(type, {}), **inputs}), 0)

    def settings(self, x: int, y: int, width: int = 360) -> dict[str, Out]:
        """The settings of all stages, which the ones added after it take; 340 high."""
        node = self.put(SETTINGS, (x, y), (width, 340)).node
        values = self.preset[SETTINGS]
        self.shared = {name: Out(node, slot, values[name]) for slot, name in enumerate(SET)}
        return self.shared

    def linked(self, **inputs: str) -> dict[str, Out]:
        """Inputs by the setting that goes into them, where there are settings."""
        return {name: self.shared[setting] for name, setting in inputs.items() if self.shared}

    def video(self, x: int, y: int) -> tuple[Out, Out, Out]:
        """A video file; its frames, sound and frame rate."""
        video = self.put("LoadVideo", (x, y), (300, 420), file=SAMPLE)
        parts = self.put("GetVideoComponents", (x, y + 480), (300, 120), video=video)
        return parts, Out(parts.node, 1), Out(parts.node, 2)

    def models(self, x: int, y: int, weight_dtype: str = "default", flow: bool = True) -> Models:
        """The loaders, one under the other; 480 high, 360 without a flow model."""
        unet = self.put("UpscaleAVideoUNetLoader", (x, y), (360, 90), weight_dtype=weight_dtype)
        vae = self.put("UpscaleAVideoVAELoader", (x, y + 145), (360, 90))
        y += 290
        motion = None
        if flow:
            motion = self.put("UpscaleAVideoFlowLoader", (x, y), (360, 70))
            y += 120
        clip = self.put("UpscaleAVideoTextEncoderLoader", (x, y), (360, 70))
        return Models(unet, vae, motion, clip)

    def one_kind(self, x: int, y: int) -> Models:
        """All models by one loader; 130 high."""
        unet = self.put("UpscaleAVideoLoader", (x, y), (360, 130))
        vae, clip, flow = (Out(unet.node, slot) for slot in (1, 2, 3))
        return Models(unet, vae, flow, clip)

    def texts(self, x: int, y: int, clip: Out, text: str | Out = QUALITY) -> tuple[Out, Out]:
        """The positive and the negative prompt, one under the other; 320 high."""
        size = (380, 130)
        positive = self.put("CLIPTextEncode", (x, y), size, title=SHOWS, text=text, clip=clip)
        negative = self.put(
            "CLIPTextEncode", (x, y + 190), size, title=AVOID, text=FLAWS, clip=clip
        )
        return positive, negative

    def conditioning(
        self, x: int, y: int, frames: Out, texts: tuple[Out, Out], **values: Any
    ) -> Sequence[Out]:
        """The frames joined to the texts: positive, negative and latent; 180 high."""
        node = self.put(
            "UpscaleAVideoConditioning",
            (x, y),
            (380, 180),
            frames=frames,
            positive=texts[0],
            negative=texts[1],
            **{"seed": 0, **self.linked(noise_level="noise_level"), **values},
        )
        return [Out(node.node, slot) for slot in range(3)]

    def propagation(self, x: int, y: int, flow: Out | None, frames: Out) -> Out:
        """Propagation along the motion; 260 high."""
        return self.put(
            "UpscaleAVideoPropagation",
            (x, y),
            (360, 260),
            flow_model=flow,
            frames=frames,
            **self.linked(steps="propagation_steps", strength="propagation_strength"),
            relative_threshold=0.001,
            absolute_threshold=0.05,
            flow_iterations=20,
        )

    def sampler(self, x: int, y: int, unet: Out, conditioning: Sequence[Out], **values: Any) -> Out:
        """The segment sampler; 380 high, and 300 more for its preview."""
        positive, negative, latent = conditioning
        return self.put(
            "UpscaleAVideoSegmentSampler",
            (x, y),
            (360, 380),
            model=unet,
            positive=positive,
            negative=negative,
            latent=latent,
            segment_length=8,
            overlap=2,
            **{"seed": 0, **self.linked(steps="steps", guidance="guidance"), **values},
        )

    def decode(self, x: int, y: int, latent: Out, vae: Out, frames: Out, **values: Any) -> Out:
        """The frames four times as large; 270 high, with what it says after a run."""
        fixed = {"lr_guidance": 1.0, "tile": 0, "tile_overlap": 16, **values}
        return self.put(
            "UpscaleAVideoVAEDecode",
            (x, y),
            (360, 270),
            samples=latent,
            vae=vae,
            frames=frames,
            **fixed,
        )

    def save_video(
        self,
        x: int,
        y: int,
        images: Out,
        fps: Out | float,
        audio: Out | None = None,
        prefix: str = "video/upscaled",
    ) -> None:
        """A video of the frames, saved; 570 high with its player."""
        made = self.put("CreateVideo", (x, y), (360, 130), images=images, fps=fps, audio=audio)
        self.put(
            "SaveVideo",
            (x, y + 190),
            (360, 380),
            video=made,
            filename_prefix=prefix,
            format="auto",
            codec="auto",
        )

    def upscale(
        self,
        x: int,
        models: Models,
        frames: Out,
        fps: Out | float,
        audio: Out | None = None,
        *,
        text: str | Out = QUALITY,
        unet: Out | None = None,
        **decode: Any,
    ) -> None:
        """Texts to the saved video, in three columns of 440 from ``x`` on; 1000 high.

        ``unet`` in place of that of the ``models``; ``decode`` are values of the decoder.
        """
        texts = self.texts(x, 120, models.clip, text)
        conditioning = self.conditioning(x, 500, frames, texts)
        propagation = self.propagation(x + 440, 120, models.flow, frames)
        unet = models.unet if unet is None else unet
        latent = self.sampler(x + 440, 440, unet, conditioning, propagation=propagation)
        images = self.decode(x + 860, 120, latent, models.vae, frames, **decode)
        self.save_video(x + 860, 450, images, fps, audio)
