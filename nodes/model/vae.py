"""The temporal VAE as an object that ComfyUI manages like its own VAEs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.model import vae_attention
from einops import rearrange
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.frames.color import ColorMode
from ...uav_core.models.attention import Attention, scaled_dot_product
from ...uav_core.models.vae import UPSCALE, TemporalVAE, VAEParams
from ...uav_core.sampling.pipeline import decode_group
from ...uav_core.sampling.segments import DECODE_GROUP, plan_groups
from ...uav_core.sampling.tiles import OVERLAP as TILE_OVERLAP
from ...uav_core.sampling.tiles import tiles_of
from ...uav_core.values import in_range
from ...uav_core.weights.checkpoints import check_keys, load_checkpoint
from ..base.inputs import to_images, video_latent
from ..base.runtime import check_cancelled, load_models
from .patcher import give_weights, new_patcher

log = logging.getLogger(__name__)

# Bytes per output pixel and frame of a group, per channel of the widest full-size layer: twice
# what the live tensors take without stripes (docs/benchmarks.md), for workspace and what an
# allocator wastes.
BYTES_PER_PIXEL_CHANNEL = 17


def check_vae(vae: Any) -> VideoVAE:
    """The VAE, if it is one of ours; InputError otherwise."""
    if not isinstance(vae, VideoVAE):
        raise InputError(
            "This is not a temporal VAE: expected the output of 'Load Temporal VAE "
            "(Upscale-A-Video)', not of the native VAE loader."
        )
    return vae


def default_dtype(device: torch.device) -> torch.dtype:
    """The precision that ComfyUI has for VAEs on ``device``, but fp32 instead of fp16."""
    dtype = mm.vae_dtype(device, [torch.bfloat16, torch.float32])
    if dtype == torch.float16:
        log.warning("The temporal VAE overflows in fp16, so --fp16-vae does not hold for it: fp32.")
        return torch.float32
    return dtype


def attention(device: torch.device) -> Attention:
    """ComfyUI's attention for VAEs; the core's where that is faster, or bounds what it holds."""
    if device.type in ("cpu", "cuda"):
        return scaled_dot_product
    return by_channels(vae_attention())


def by_channels(kernel: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attention:
    """A kernel of ComfyUI's for VAEs, which takes one head and (batch, channels, positions)."""

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        return kernel(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    return attend


def vae_patcher(
    path: str, dtype: torch.dtype, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the temporal VAE in ``path``, loaded anew."""
    return VideoVAE(path, dtype, disable_dynamic).patcher


class VideoVAE:
    """A loaded temporal VAE, in fp32 or bf16: in fp16 the decoder overflows."""

    # Read by ComfyUI's own nodes.
    latent_channels = 4
    latent_dim = 3
    output_channels = 3
    upscale_ratio = UPSCALE
    downscale_ratio = UPSCALE

    def __init__(
        self, path: str, dtype: torch.dtype | None = None, disable_dynamic: bool = False
    ) -> None:
        """``dtype`` of the weights; ComfyUI chooses for the device where it is left out.

        ``disable_dynamic`` asks for a patcher without dynamic memory. Raises a CheckpointError
        that says what the file is, if it is not a temporal VAE.
        """
        self.path = path
        checkpoint = load_checkpoint(path, ("vae_3d", "vae_video"))
        weights = checkpoint.state_dict
        params = VAEParams.from_state_dict(weights)
        # Of plain layers, as ComfyUI's may wait for their weights without names or shapes.
        check_keys(TemporalVAE(params, device="meta"), weights, checkpoint.source)
        self.device = mm.vae_device()
        self.output_device = mm.intermediate_device()
        self.vae_dtype = dtype or default_dtype(self.device)
        model = TemporalVAE(
            params,
            operations=comfy.ops.disable_weight_init,
            dtype=self.vae_dtype,
            attend=attention(self.device),
        )
        model.precision = self.vae_dtype  # streamed weights are stored as the file has them
        self.first_stage_model = model.eval().requires_grad_(False)
        self.patcher = new_patcher(model, self.device, mm.vae_offload_device(), disable_dynamic)
        give_weights(self.patcher, model, weights, self.vae_dtype)
        # Copies for another device reload the weights through this.
        self.patcher.cached_patcher_init = (vae_patcher, (path, self.vae_dtype))

    @property
    def params(self) -> VAEParams:
        return self.first_stage_model.params

    def memory_required(self, frames: int, h: int, w: int) -> int:
        """Bytes that decoding ``frames`` frames of (h, w) latents together takes at its peak."""
        pixels = frames * h * w * UPSCALE**2
        return pixels * self.params.channels[1] * BYTES_PER_PIXEL_CHANNEL

    def decode_video(
        self,
        samples: Tensor,
        low_res: Tensor | None,
        *,
        w: float = 1.0,
        group: int = DECODE_GROUP,
        color: ColorMode = "none",
        tile: int = 0,
        tile_overlap: int = TILE_OVERLAP,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Decode group by group.

        Args:
            samples: (1, 4, t, h, w), already divided by the latent scale.
            low_res: (1, 3, t, h, w) in [-1, 1], or None for ``vae_3d``.
            w: weight of the low-resolution guidance, 0 to 1.
            group: frames decoded together, sharing their normalisation.
            color: colour fix towards ``low_res``; needs it.
            tile: side of square tiles in pixels of ``low_res``; 0 for whole frames.
            progress: called with (groups done, groups in all).

        Returns:
            IMAGE (t, 4h, 4w, 3) in [0, 1], on ComfyUI's intermediate device.
        """
        t, h, width = samples.shape[2:]
        groups, tiles = plan_groups(t, group), tiles_of(samples, tile, tile_overlap)
        self.load(min(group, t), h, width, tile)
        images = torch.empty(
            (t, h * UPSCALE, width * UPSCALE, 3), dtype=torch.float32, device=self.output_device
        )
        for done, g in enumerate(groups, start=1):
            check_cancelled()
            s = slice(g.start, g.stop)
            z = samples[:, :, s].to(self.device, torch.float32)
            frames = None if low_res is None else low_res[:, :, s].to(z)
            pixels = decode_group(
                self.first_stage_model, z, frames, w, color, tiles, check_cancelled
            )
            images[s] = to_images(pixels).to(self.output_device)
            if progress is not None:
                progress(done, len(groups))
        return images

    def load(self, frames: int, h: int, w: int, tile: int | None) -> None:
        """Bring the VAE to the device, with room to decode ``frames`` frames of (h, w)."""
        side = tile or max(h, w)
        need = self.memory_required(frames, min(h, side), min(w, side))
        load_models([self.patcher], memory_required=need)

    def decode(self, samples: Tensor, **_: Any) -> Tensor:
        """ComfyUI's native VAE Decode: (1, 4, t, h, w) -> (1, t, 4h, 4w, 3).

        Raises InputError for ``vae_video``, which needs the low-resolution frames as well.
        """
        return self._decode_alone(samples)[None]

    def decode_tiled(
        self,
        samples: Tensor,
        tile_x: int = 0,
        tile_y: int = 0,
        overlap: int = TILE_OVERLAP,
        **_: Any,
    ) -> Tensor:
        """ComfyUI's native tiled decode: as ``decode``, sides of tiles and overlap in latents."""
        return self._decode_alone(samples, min(tile_x, tile_y), overlap)[None]

    def spacial_compression_decode(self) -> int:
        """Pixels to a latent; the spelling is ComfyUI's."""
        return UPSCALE

    def temporal_compression_decode(self) -> None:
        """Frames to a latent; None: time is not compressed, and is decoded in groups anyway."""

    def _decode_alone(self, samples: Tensor, tile: int = 0, overlap: int = 0) -> Tensor:
        if self.params.temporal:
            raise InputError(
                "This VAE (vae_video) decodes with the low-resolution frames, which the native "
                "'VAE Decode' cannot give it. Use 'Temporal VAE Decode', or load vae_3d."
            )
        if samples.ndim == 4:
            samples = rearrange(samples, "t c h w -> 1 c t h w")
        samples = video_latent({"samples": samples})
        return self.decode_video(samples, None, tile=tile, tile_overlap=overlap)

    def encode(self, pixels: Tensor) -> Tensor:
        """ComfyUI's native VAE Encode: IMAGE (t, 4h, 4w, 3) -> mean latent (1, 4, t, h, w)."""
        h, w = (side // UPSCALE * UPSCALE for side in pixels.shape[1:3])
        pixels = in_range(pixels[:, :h, :w, :3], "frames")
        video = rearrange(pixels, "t h w c -> 1 c t h w") * 2 - 1
        groups = plan_groups(video.shape[2])
        need = self.memory_required(DECODE_GROUP, h // UPSCALE, w // UPSCALE)
        load_models([self.patcher], memory_required=need)
        parts = []
        for g in groups:
            check_cancelled()
            part = video[:, :, g.start : g.stop].to(self.device, torch.float32)
            parts.append(self.first_stage_model.encode(part).to(self.output_device))
        return torch.cat(parts, dim=2)
