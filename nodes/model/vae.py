"""The temporal VAE as an object that ComfyUI manages like its own VAEs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.model import vae_attention
from einops import rearrange
from torch import Tensor

from ...uav_core.callbacks import ignore
from ...uav_core.errors import InputError
from ...uav_core.frames.color import ColorMode
from ...uav_core.models.attention import Attention, scaled_dot_product
from ...uav_core.models.budgets import decode_bytes
from ...uav_core.models.half import fitted_to_half, overflowed
from ...uav_core.models.vae import UPSCALE, TemporalVAE, VAEParams
from ...uav_core.sampling.ladder import Ladder, Setting, StepDown, decode_ladder, from_tile
from ...uav_core.sampling.pipeline import decode_group
from ...uav_core.sampling.segments import DECODE_GROUP, plan_groups
from ...uav_core.sampling.tiles import OVERLAP as TILE_OVERLAP
from ...uav_core.sampling.tiles import plan_tiles
from ...uav_core.values import check_finite, in_range
from ...uav_core.weights.checkpoints import check_keys, load_checkpoint
from ..base.inputs import to_images, video_latent
from ..base.runtime import check_cancelled, device_room, load_models, stepping_down
from .patcher import give_weights, new_patcher

log = logging.getLogger(__name__)

WHOLE = Setting()


def check_vae(vae: Any) -> VideoVAE:
    """``vae`` itself, if it is a temporal VAE; InputError otherwise."""
    if not isinstance(vae, VideoVAE):
        raise InputError(
            "This is not a temporal VAE: expected the output of 'Load Temporal VAE "
            "(Upscale-A-Video)', not of the native VAE loader."
        )
    return vae


def default_dtype(device: torch.device) -> torch.dtype:
    """The precision of VAEs on ``device`` by ComfyUI: by its options, else fp16, bf16 or fp32.

    fp16 only on NVIDIA cards: some AMD cards take its smallest values for zero.
    """
    half = [torch.float16] if is_nvidia(device) else []
    return mm.vae_dtype(device, [*half, torch.bfloat16, torch.float32])


def is_nvidia(device: torch.device) -> bool:
    """Whether ``device`` is an NVIDIA card, not an AMD one with the same name."""
    return device.type == "cuda" and torch.version.hip is None


def usable(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """``dtype``, but fp32 instead of fp16 where there is no CUDA.

    A CPU takes a hundred times as long in fp16, and Apple's norms overflow inside.
    """
    if dtype == torch.float16 and device.type != "cuda":
        log.info("The VAE runs in fp32, as fp16 is slow or not exact on this device (%s).", device)
        return torch.float32
    return dtype


def wider_dtype(device: torch.device) -> torch.dtype:
    """The precision for what overflows in fp16."""
    return torch.bfloat16 if mm.should_use_bf16(device) else torch.float32


def attention(device: torch.device) -> Attention:
    """ComfyUI's attention for VAEs; the core's where that is faster or bounds its memory."""
    if device.type in ("cpu", "cuda"):
        return scaled_dot_product
    return by_channels(vae_attention())


def by_channels(kernel: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Attention:
    """Wrap a VAE kernel of ComfyUI, which takes one head as (batch, channels, positions)."""

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
        return kernel(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    return attend


def vae_patcher(
    path: str, dtype: torch.dtype, disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """The patcher of the temporal VAE in ``path``, newly loaded."""
    return VideoVAE(path, dtype, disable_dynamic).patcher


class VideoVAE:
    """A loaded temporal VAE, in fp32, bf16 or fp16."""

    # Read by ComfyUI's own nodes.
    latent_channels = 4
    latent_dim = 3
    output_channels = 3
    upscale_ratio = UPSCALE
    downscale_ratio = UPSCALE

    def __init__(
        self, path: str, dtype: torch.dtype | None = None, disable_dynamic: bool = False
    ) -> None:
        """``dtype`` is that of the weights; if None, ``default_dtype`` chooses for the device.

        ``disable_dynamic`` asks for a patcher without dynamic memory. Raises a CheckpointError
        that says what the file is, if it is not a temporal VAE.
        """
        checkpoint = load_checkpoint(path, ("vae_3d", "vae_video"))
        self.path, self.stamp = path, checkpoint.stamp
        weights = checkpoint.state_dict
        params = VAEParams.from_state_dict(weights)
        # Checked on plain layers, as ComfyUI's may have no names or shapes before loading.
        check_keys(TemporalVAE(params, device="meta"), weights, checkpoint.source)
        self.device = mm.vae_device()
        self.output_device = mm.intermediate_device()
        self.vae_dtype = usable(dtype or default_dtype(self.device), self.device)
        half = self.vae_dtype == torch.float16
        model = TemporalVAE(
            params,
            # What overflows in fp16 is computed in another precision, to which layers then cast.
            operations=comfy.ops.manual_cast if half else comfy.ops.disable_weight_init,
            dtype=self.vae_dtype,
            attend=attention(self.device),
        )
        model.precision = self.vae_dtype  # streamed weights are stored as the file has them
        if half:
            model.wider = wider_dtype(self.device)
            weights = fitted_to_half(model, weights)
        self.first_stage_model = model.eval().requires_grad_(False)
        self.patcher = new_patcher(model, self.device, mm.vae_offload_device(), disable_dynamic)
        give_weights(self.patcher, model, weights, self.vae_dtype)
        # Copies for another device reload the weights through this.
        self.patcher.cached_patcher_init = (vae_patcher, (path, self.vae_dtype))

    @property
    def params(self) -> VAEParams:
        return self.first_stage_model.params

    def memory_required(self, frames: int, h: int, w: int, spared: bool = False) -> int:
        """Peak bytes of decoding ``frames`` frames of (h, w) latents together.

        ``spared``: in the most memory-saving way.
        """
        dtype = self.first_stage_model.precision or self.vae_dtype
        return decode_bytes(self.params, frames, h, w, dtype.itemsize, spared)

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
        self_ensemble: bool = False,
        progress: Callable[[int, int], None] | None = None,
        on_step: Callable[[StepDown], None] = ignore,
    ) -> Tensor:
        """Decode group by group. If memory runs out, go on with less at once.

        Args:
            samples: (1, 4, t, h, w), already divided by the latent scale.
            low_res: (1, 3, t, h, w) in [-1, 1], or None for ``vae_3d``.
            w: weight of the low-resolution guidance, 0 to 1.
            group: frames decoded together, sharing their normalisation.
            color: colour fix towards ``low_res``, which must then be given.
            tile: side of square tiles in pixels of ``low_res``; 0 for whole frames.
            self_ensemble: decode four times, mirrored, and take the mean; see ``decode_group``.
            progress: called with (groups done, groups in all).
            on_step: called when memory ran out, with the step down that was taken.

        Returns:
            IMAGE (t, 4h, 4w, 3) in [0, 1], on ComfyUI's intermediate device.
        """
        t, h, width = samples.shape[2:]
        ladder = decode_ladder(t, h, width, group, tile_overlap)
        if tile:
            ladder = from_tile(ladder, tile, tile_overlap)
        self.foresee(ladder, h, width, on_step)
        images = torch.empty(
            (t, h * UPSCALE, width * UPSCALE, 3), dtype=torch.float32, device=self.output_device
        )
        groups = plan_groups(t, group)
        loaded: set[tuple[int, Setting]] = set()

        def work(setting: Setting, group: range) -> None:
            most = min(setting.frames or len(group), len(group))
            if (most, setting) not in loaded:  # each call copies small weights and empties caches
                self.load(most, h, width, setting)
                loaded.add((most, setting))
            tiles = plan_tiles(samples.shape[-2:], setting.tile, setting.overlap)
            for first in range(group.start, group.stop, most):
                part = slice(first, min(first + most, group.stop))
                z = samples[:, :, part].to(self.device, torch.float32)
                frames = None if low_res is None else low_res[:, :, part].to(z)
                decoded = partial(
                    decode_group,
                    self.first_stage_model,
                    z,
                    frames,
                    w,
                    color,
                    tiles,
                    self_ensemble,
                    check_cancelled,
                )
                load = partial(self.load, most, h, width, setting)
                pixels = self.widened(decoded, load, part.start)
                images[part].copy_(to_images(pixels))

        for done, together in enumerate(groups, start=1):
            check_cancelled()
            stepping_down(partial(work, group=together), ladder, on_step)
            if progress is not None:
                progress(done, len(groups))
        return images

    def widened(
        self, compute: Callable[[], Tensor], load: Callable[[], None], first: int
    ) -> Tensor:
        """``compute()``, and once more in a wider precision, after ``load()``, if it overflows.

        ``first`` is the number of the first frame. Raises NumericalError if it overflows in that
        too.
        """
        network, result = self.first_stage_model, compute()
        if network.wider is not None and overflowed(result):
            del result
            with network.in_wider():
                load()
                result = compute()
            check_finite(result, "result", "The VAE", dim=2, first=first)
        return result

    def foresee(
        self, ladder: Ladder, h: int, w: int, on_step: Callable[[StepDown], None] = ignore
    ) -> None:
        """Step down to the first setting whose smallest need for frames (h, w) fits the device."""

        def least(setting: Setting) -> int:
            return self.memory_required(setting.frames or 1, *setting.size(h, w), spared=True)

        step = ladder.foresee(least, device_room(self.device))
        if step is not None:
            on_step(step)

    def load(self, frames: int, h: int, w: int, setting: Setting = WHOLE) -> None:
        """Bring the VAE to the device, with room to decode ``frames`` frames of (h, w).

        Room for whole layers if they fit beside the loaded models, else for the smallest need.
        """
        need = partial(self.memory_required, frames, *setting.size(h, w))
        missing = self.patcher.model_size() - self.patcher.loaded_size()
        fits = not setting.sparing and need() + missing <= mm.get_free_memory(self.device)
        load_models([self.patcher], memory_required=need(spared=not fits))

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
        """ComfyUI's native tiled decode: ``decode`` in tiles; tile and overlap in latent pixels."""
        return self._decode_alone(samples, min(tile_x, tile_y), overlap)[None]

    def spacial_compression_decode(self) -> int:
        """Output pixels per latent pixel; the spelling is ComfyUI's."""
        return UPSCALE

    def spacial_compression_encode(self) -> int:
        """Input pixels per latent pixel; the spelling is ComfyUI's."""
        return UPSCALE

    def temporal_compression_decode(self) -> None:
        """Frames per latent frame; None, as time is not compressed."""

    def _decode_alone(self, samples: Tensor, tile: int = 0, overlap: int = 0) -> Tensor:
        if self.params.temporal:
            raise InputError(
                "This VAE (vae_video) decodes with the low-resolution frames, which the native "
                "'VAE Decode' cannot provide. Use 'Temporal VAE Decode', or load vae_3d."
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
        load = partial(load_models, [self.patcher], memory_required=need)
        load()
        parts = []
        for g in groups:
            check_cancelled()
            part = video[:, :, g.start : g.stop].to(self.device, torch.float32)
            encoded = self.widened(partial(self.first_stage_model.encode, part), load, g.start)
            parts.append(encoded.to(self.output_device))
        return torch.cat(parts, dim=2)

    def encode_tiled(self, pixels: Tensor, **_: Any) -> Tensor:
        """ComfyUI's native tiled encode: ``encode``, which takes whole frames, group by group."""
        return self.encode(pixels)

    def get_sd(self) -> dict[str, Tensor]:
        """What ComfyUI would save; always raises InputError.

        In fp16 the weights in memory are rescaled, and fit no other precision.
        """
        raise InputError(
            f"The temporal VAE (from {self.path}) cannot be saved: its weights may be rescaled in "
            "memory to fit fp16. Copy the file instead. To save the U-Net, use 'ModelSave', not "
            "'Save Checkpoint'."
        )
