"""Enlarges a matte or depth clip along the edges and motion of the upscaled frames."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.flow.builtin import BuiltinFlow
from ...uav_core.sampling.along import check_along, enlarged_along, seen
from ..base.inputs import checked_frames
from ..base.runtime import check_cancelled, progress_bar
from ..base.schema import PropagationSocket, schema
from ..loaders.load import flow_patcher
from ..sampling.propagate import FlowPropagation, flows_of


class UpscaleMatte(io.ComfyNode):
    """Small matte or depth, and upscaled frames -> the matte or depth, enlarged."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "UpscaleAVideoMatte",
            "Upscale Matte or Depth (Upscale-A-Video)",
            ("depth map", "matte", "roto", "upscale mask", "joint bilateral", "guided upsampling"),
            description="Enlarges a matte, depth map or similar clip to match the upscaled frames. "
            "Its edges follow those of the frames, and it is stabilised along their motion.",
            inputs=[
                io.MultiType.Input(
                    "small",
                    [io.Mask, io.Image],
                    tooltip="One for each upscaled frame, of the same aspect ratio and no larger. "
                    "Values may have any range; it is kept.",
                ),
                io.Image.Input(
                    "frames", tooltip="The upscaled frames, from 'Temporal VAE Decode'."
                ),
                PropagationSocket.Input(
                    "propagation",
                    optional=True,
                    tooltip="From 'Flow-Guided Propagation', to use its motion. If unconnected, "
                    "the motion is estimated from the upscaled frames.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The enlarged clip, as an image."),
                io.Mask.Output(display_name="mask", tooltip="The enlarged clip, as a mask."),
            ],
        )

    @classmethod
    def execute(
        cls, small: Tensor, frames: Tensor, propagation: FlowPropagation | None = None
    ) -> io.NodeOutput:
        values, frames = layer(small), checked_frames(frames)
        t, _, h, w = values.shape
        check_along((t, h, w), thw(frames), "The matte or depth")
        forward, backward = flows(frames, (h, w), propagation)
        pairs = zip(forward.unbind(2), backward.unbind(2), strict=True)
        guides = (frame.movedim(-1, 0).float() * 2 - 1 for frame in frames)
        progress = progress_bar(t)
        large = torch.empty((t, values.shape[1], *frames.shape[1:3]))
        for i, frame in enumerate(enlarged_along(values, guides, lambda *_: next(pairs))):
            check_cancelled()
            large[i] = frame
            progress(i + 1, t)
        image = large.movedim(1, -1)
        return io.NodeOutput(image.expand(-1, -1, -1, 3), image.mean(-1))


def thw(images: Tensor) -> tuple[int, int, int]:
    """Frames, rows and columns of an IMAGE."""
    t, h, w, _ = images.shape
    return t, h, w


def layer(small: Tensor) -> Tensor:
    """A MASK or IMAGE as (t, c, h, w).

    Raises InputError for other shapes, integers, and NaN or infinity.
    """
    if small.ndim in (2, 3):
        small = small[None] if small.ndim == 2 else small
        small = small[..., None]
    if small.ndim != 4 or small.shape[3] not in (1, 3) or 0 in small.shape:
        raise InputError(
            f"The matte or depth arrived as {tuple(small.shape)}: expected a mask (frames, height, "
            "width), or an image (frames, height, width, 3). For RGBA frames use 'Upscale Alpha'."
        )
    if not small.is_floating_point():
        raise InputError(
            f"The matte or depth has values of type {small.dtype}: expected floating-point numbers."
        )
    for number, frame in enumerate(small):
        if not frame.isfinite().all():
            raise InputError(
                f"Frame {number} of the matte or depth has NaN or infinity: expected finite "
                "numbers. Check the node that made it; for depth, set a maximum distance."
            )
    return small.movedim(-1, 1).float()


def flows(
    frames: Tensor, small: tuple[int, int], propagation: FlowPropagation | None
) -> tuple[Tensor, Tensor]:
    """Forward and backward flow: of ``propagation``, or estimated on frames of size ``small``."""
    if propagation is None:
        shrunk = [seen(frame.movedim(-1, 0)[None].float() * 2 - 1, small) for frame in frames]
        return flows_of(flow_patcher(BuiltinFlow()), torch.stack(shrunk, dim=2))
    t, h, w = propagation.frames.shape[2:]
    check_along((t, h, w), thw(frames), "The clip of 'Flow-Guided Propagation'")
    return propagation.estimate()
