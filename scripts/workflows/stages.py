"""The five stages of an upscale as parts of a workflow: each adds its nodes at (x, y)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scripts.workflows.forms import Graph, Out
from scripts.workflows.presets import INCLUDED, SETTINGS, Preset
from uav_core.sampling.presets import FLAWS, QUALITY

SAMPLE, PICTURE = "upscale_a_video_sample.mp4", "upscale_a_video_sample.png"
"""Files that the pack copies to ComfyUI's input folder."""
SET = (
    "noise_level",
    "guidance",
    "steps",
    "propagation_steps",
    "propagation_strength",
    "self_ensemble",
)
"""Outputs of the node Settings, in order."""
SHOWS, AVOID = "What the clip shows (positive prompt)", "What to avoid (negative prompt)"

Position = tuple[int, int]

# With five columns and a height of at most 1000 a workflow opens on a screen of 1366x768 at a scale
# at which ComfyUI still draws the texts of nodes (8 pixels; by default they have 14).
WIDE, PITCH = 320, 350
"""Width of a node, and of a column: a node, the margins of its group, and a gap."""
TALL = 1000
LOWER = 40
"""Offset of the last column, as ComfyUI's Run panel would cover its top."""


@dataclass(frozen=True)
class Models:
    """The outputs of the four loaders."""

    unet: Out
    vae: Out
    flow: Out | None
    clip: Out


class Stages(Graph):
    """A workflow whose nodes have a preset's values, or are linked to those of `settings`."""

    def __init__(self, preset: Preset = INCLUDED) -> None:
        super().__init__()
        self.preset = preset
        self.shared: dict[str, Out] = {}

    def put(self, type: str, pos: Position, size: tuple[int, int], /, **inputs: Any) -> Out:
        """Add a node; ``inputs`` override the preset. Returns its first output."""
        return Out(self.add(type, pos, size, **{**self.preset.get(type, {}), **inputs}), 0)

    def settings(self, x: int, y: int) -> dict[str, Out]:
        """Add the node Settings, to which stages added later are linked; 350 high."""
        node = self.put(SETTINGS, (x, y), (WIDE, 350)).node
        values = self.preset[SETTINGS]
        self.shared = {name: Out(node, slot, values[name]) for slot, name in enumerate(SET)}
        return self.shared

    def linked(self, **inputs: str) -> dict[str, Out]:
        """Links of inputs to the settings named; empty without the node Settings."""
        return {name: self.shared[setting] for name, setting in inputs.items() if self.shared}

    def video(self, x: int, y: int) -> tuple[Out, Out, Out]:
        """Add a video file. Returns its frames, sound and frame rate; 480 high."""
        video = self.put("LoadVideo", (x, y), (WIDE, 340), file=SAMPLE)
        parts = self.put("GetVideoComponents", (x, y + 380), (WIDE, 100), video=video)
        return parts, Out(parts.node, 1), Out(parts.node, 2)

    def models(self, x: int, y: int, weight_dtype: str = "default", flow: bool = True) -> Models:
        """Add the loaders, one below the other; 460 high, 344 without a flow model.

        Nodes 2.0 draws each 26 to 34 taller.
        """
        unet = self.put("UpscaleAVideoUNetLoader", (x, y), (WIDE, 80), weight_dtype=weight_dtype)
        vae = self.put("UpscaleAVideoVAELoader", (x, y + 144), (WIDE, 80))
        y += 284
        motion = None
        if flow:
            motion = self.put("UpscaleAVideoFlowLoader", (x, y), (WIDE, 60))
            y += 116
        clip = self.put("UpscaleAVideoTextEncoderLoader", (x, y), (WIDE, 60))
        return Models(unet, vae, motion, clip)

    def one_kind(self, x: int, y: int) -> Models:
        """Add one loader for all models; 130 high."""
        unet = self.put("UpscaleAVideoLoader", (x, y), (WIDE, 130))
        vae, clip, flow = (Out(unet.node, slot) for slot in (1, 2, 3))
        return Models(unet, vae, flow, clip)

    def texts(self, x: int, y: int, clip: Out, text: str | Out = QUALITY) -> tuple[Out, Out]:
        """Add the positive and the negative prompt, one below the other; 260 high."""
        size = (WIDE, 110)
        positive = self.put("CLIPTextEncode", (x, y), size, title=SHOWS, text=text, clip=clip)
        negative = self.put(
            "CLIPTextEncode", (x, y + 150), size, title=AVOID, text=FLAWS, clip=clip
        )
        return positive, negative

    def conditioning(
        self, x: int, y: int, frames: Out, texts: tuple[Out, Out], **values: Any
    ) -> Sequence[Out]:
        """Add the conditioning. Returns positive, negative and latent; 160 high."""
        node = self.put(
            "UpscaleAVideoConditioning",
            (x, y),
            (WIDE, 160),
            frames=frames,
            positive=texts[0],
            negative=texts[1],
            **{"seed": 0, **self.linked(noise_level="noise_level"), **values},
        )
        return [Out(node.node, slot) for slot in range(3)]

    def propagation(self, x: int, y: int, flow: Out | None, frames: Out, **options: Any) -> Out:
        """Add the propagation; 220 high."""
        return self.put(
            "UpscaleAVideoPropagation",
            (x, y),
            (WIDE, 220),
            flow_model=flow,
            frames=frames,
            **self.linked(steps="propagation_steps", strength="propagation_strength"),
            relative_threshold=0.001,
            absolute_threshold=0.05,
            flow_iterations=20,
            **options,
        )

    def sampler(self, x: int, y: int, unet: Out, conditioning: Sequence[Out], **values: Any) -> Out:
        """Add the segment sampler; 360 high, and 220 more for its preview."""
        positive, negative, latent = conditioning
        return self.put(
            "UpscaleAVideoSegmentSampler",
            (x, y),
            (WIDE, 360),
            model=unet,
            positive=positive,
            negative=negative,
            latent=latent,
            segment_length=8,
            overlap=2,
            **{"seed": 0, **self.linked(steps="steps", guidance="guidance"), **values},
        )

    def decode(self, x: int, y: int, latent: Out, vae: Out, frames: Out, **values: Any) -> Out:
        """Add the decoder; 250 high, with its report after a run."""
        own = {"lr_guidance": 1.0, "tile": 0, "tile_overlap": 16, "self_ensemble": False}
        fixed = {**own, **self.linked(self_ensemble="self_ensemble"), **values}
        return self.put(
            "UpscaleAVideoVAEDecode",
            (x, y),
            (WIDE, 250),
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
        """Add the nodes that make and save the video; 410 high with the player.

        The first has no settings and is collapsed, so that those of the second are not covered by
        the page's small map.
        """
        given: dict[str, Any] = {"images": images, "fps": fps, "audio": audio}
        made = self.put("CreateVideo", (x, y), (WIDE, 110), folded=True, **given)
        self.put(
            "SaveVideo",
            (x, y + 50),
            (WIDE, 360),
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
        tile: int = 0,
        detail: float = 1.0,
        **decode: Any,
    ) -> None:
        """Add everything from the texts to the saved video, in three columns from (x, 80) on.

        ``tile`` puts tiles between the U-Net and the sampler; ``detail`` is the value of that node,
        ``decode`` are values of the decoder.
        """
        texts = self.texts(x, 80, models.clip, text)
        conditioning = self.conditioning(x, 400, frames, texts)
        y, unet = 80, models.unet
        propagation = self.propagation(x + PITCH, y, models.flow, frames)
        if tile:
            unet = self.put(
                "UpscaleAVideoTiles",
                (x + PITCH, 360),
                (WIDE, 90),
                model=unet,
                tile=tile,
                overlap=16,
            )
            y += 150
        latent = self.sampler(x + PITCH, y + 280, unet, conditioning, propagation=propagation)
        x, y = x + 2 * PITCH, LOWER
        images = self.decode(x, y + 80, latent, models.vae, frames, tile=tile, **decode)
        images = self.put(
            "UpscaleAVideoDetail",
            (x, y + 370),
            (WIDE, 80),
            upscaled=images,
            frames=frames,
            detail=detail,
        )
        self.save_video(x, y + 515, images, fps, audio)
