"""The whole of Upscale-A-Video from its pieces, without ComfyUI.

Tests, benchmarks and training run this; the nodes compose the same pieces inside ComfyUI.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..callbacks import Progress, ignore
from ..errors import CheckpointMismatchError, InputError
from ..frames.color import ColorMode, color_fix, enlarge
from ..models.half import fitted_to_half
from ..models.unet import TemporalUNet, UNetParams
from ..models.vae import LATENT_SCALE, TemporalVAE, VAEParams
from ..values import in_range
from ..weights.checkpoints import load_checkpoint, strict_load
from . import schedule
from .ddim import VelocityDDIM
from .guidance import WHOLE_RUN, GuidanceRange
from .propagation import PropagationParams, check_steps, propagate
from .segments import DECODE_GROUP, OVERLAP, SEGMENT_LENGTH, combine, plan_groups, plan_segments
from .tiles import OVERLAP as TILE_OVERLAP
from .tiles import Tile, plan_tiles, tiled_decode, tiled_predict

NULL_TEXT_KEY = "null_text_embedding"

Source = str | os.PathLike[str] | Mapping[str, Tensor]

MIRRORED = ((-1,), (-2,), (-2, -1))
"""Axes of the frames that are mirrored for a self-ensemble."""


def load_unet(
    state_dict_or_path: Source, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> TemporalUNet:
    """Load a temporal U-Net of any size; see TemporalUNet for how to call it.

    Raises a CheckpointError that says what the file looks like, if it is not a whole temporal
    U-Net.
    """
    checkpoint = load_checkpoint(state_dict_or_path, "unet")
    weights = dict(checkpoint.state_dict)
    null_text = weights.pop(NULL_TEXT_KEY, None)
    params = UNetParams.from_state_dict(weights)
    unet = TemporalUNet(params, dtype=dtype, device="meta")
    strict_load(unet, _placed(weights, dtype, device), checkpoint.source)
    if null_text is not None:
        unet.null_text_embedding = check_null_text(null_text, params.context_dim)
    return unet.eval().requires_grad_(False)


def _placed(weights: Mapping[str, Tensor], dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """The weights as the module will hold them; rotary tables keep their precision."""
    return {
        key: value.to(device, torch.float32 if key.endswith("freqs") else dtype)
        for key, value in weights.items()
    }


def check_null_text(embedding: Tensor, context_dim: int) -> Tensor:
    """The stored embedding of the empty text as (tokens, context_dim)."""
    if embedding.ndim == 3 and embedding.shape[0] == 1:
        embedding = embedding[0]
    if embedding.ndim != 2 or embedding.shape[1] != context_dim:
        raise CheckpointMismatchError(
            f"'{NULL_TEXT_KEY}' is {tuple(embedding.shape)}: expected (tokens, {context_dim}) for "
            "this U-Net."
        )
    return embedding


def load_vae(
    state_dict_or_path: Source, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> TemporalVAE:
    """Load ``vae_3d`` or ``vae_video`` of any size; see TemporalVAE for encode and decode.

    Raises a CheckpointError that says what the file looks like, if it is neither.
    """
    checkpoint = load_checkpoint(state_dict_or_path, ("vae_3d", "vae_video"))
    weights = checkpoint.state_dict
    vae = TemporalVAE(VAEParams.from_state_dict(weights), dtype=dtype, device="meta")
    if dtype == torch.float16:
        weights = fitted_to_half(vae, weights)
    strict_load(vae, _placed(weights, dtype, device), checkpoint.source)
    return vae.eval().requires_grad_(False)


@torch.inference_mode()
def sample(
    unet: TemporalUNet,
    frames: Tensor,
    context: Tensor,
    *,
    steps: int = 30,
    guidance: float = 6.0,
    guided: GuidanceRange = WHOLE_RUN,
    noise_level: int = schedule.DEFAULT_NOISE_LEVEL,
    noise: Tensor,
    low_res_noise: Tensor,
    flows: tuple[Tensor, Tensor] | None = None,
    propagation_steps: Sequence[int] = (),
    propagation: PropagationParams | None = None,
    segment_length: int = SEGMENT_LENGTH,
    overlap: int = OVERLAP,
    tile: int | None = None,
    tile_overlap: int = TILE_OVERLAP,
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> Tensor:
    """Denoise the latent of a clip.

    Args:
        unet: from ``load_unet``.
        frames: (1, 3, t, h, w) in [-1, 1], low resolution.
        context: (2, 77, dim), the encoded texts as [negative, positive].
        steps: DDIM steps, 1 to 999.
        guidance: classifier-free guidance scale; 1 is the positive text alone.
        guided: the part of the run with guidance.
        noise_level: 0 to 350, the noise put on the frames before the U-Net sees them.
        noise: (1, 4, t, h, w), standard normal, where the latent starts.
        low_res_noise: like ``frames``, standard normal.
        flows: (forward, backward), each (1, 2, t - 1, h, w) in pixels.
        propagation_steps: 0-based steps at which latents are propagated along ``flows``.
        propagation: strength and thresholds; the reference's if None.
        tile: side of square tiles in pixels of the frames, None for whole frames.
        progress: ``progress(done, total)`` counts segments.
        check_cancelled: called before each segment; may raise.

    Returns:
        (1, 4, t, h, w), before the division by the latent scale.

    Raises:
        InputError: shapes that do not fit each other, or values outside their range; NaN and
            infinity in the frames among them.
    """
    _check_run(unet, frames, context, noise, low_res_noise, flows, propagation_steps, steps)
    low_res = schedule.noise_low_res(frames, low_res_noise, noise_level)
    plan = plan_segments(frames.shape[2], segment_length, overlap)
    ddim = VelocityDDIM(steps, noise.device, unet.params.trailing)
    done, total = 0, steps * len(plan)
    predict = tiled_predict(
        unet, plan_tiles(frames.shape[-2:], tile, tile_overlap), check_cancelled
    )

    latent = ddim.start(noise)
    for i, t in enumerate(ddim.times):
        parts = []
        strength = guidance if guided.covers(i, steps) else 1.0
        for segment in plan:
            check_cancelled()
            s = slice(segment.start, segment.stop)
            v = velocity(
                predict, latent[:, :, s], t, low_res[:, :, s], context, noise_level, strength
            )
            parts.append((segment, v))
            done += 1
            progress(done, total)
        x0, eps = ddim.split(latent, combine(parts, latent), i)
        if flows is not None and i in propagation_steps:
            x0 = propagate(x0, *flows, propagation)
        latent = ddim.join(x0, eps, i)
    return ddim.end(latent)


def velocity(
    predict: Callable[..., Tensor],
    latent: Tensor,
    time: int,
    low_res: Tensor,
    context: Tensor,
    noise_level: int,
    guidance: float,
) -> Tensor:
    """v of one segment (1, 4, n, h, w), classifier-free guidance applied.

    ``predict`` is called once, like a TemporalUNet, with both texts as a batch; with guidance 1
    only with the positive one. ``low_res`` (1, 3, n, h, w) are the noised frames.
    """
    if guidance == 1:
        context = context[1:]
    n, device = len(context), latent.device
    v = predict(
        latent.expand(n, -1, -1, -1, -1),
        torch.full((n,), time, device=device),
        low_res.expand(n, -1, -1, -1, -1),
        context,
        torch.full((n,), noise_level, device=device),
    )
    if guidance == 1:
        return v
    uncond, cond = v.chunk(2)
    return uncond + guidance * (cond - uncond)


@torch.inference_mode()
def decode(
    vae: TemporalVAE,
    latents: Tensor,
    frames: Tensor,
    *,
    w: float = 1.0,
    group: int = DECODE_GROUP,
    color: ColorMode = "none",
    tile: int | None = None,
    tile_overlap: int = TILE_OVERLAP,
    self_ensemble: bool = False,
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> Tensor:
    """Decode latents (before the division by the latent scale) in groups of frames.

    ``frames`` (1, 3, t, h, w) in [-1, 1] guide the decoder with weight ``w``, and the colour fix
    ``color``. ``tile`` is the side of square tiles in pixels of the frames, None for whole frames;
    for ``self_ensemble`` see ``decode_group``.
    Returns (1, 3, t, 4h, 4w) in [-1, 1].
    """
    groups, out = plan_groups(latents.shape[2], group), []
    tiles = plan_tiles(latents.shape[-2:], tile, tile_overlap)
    for i, g in enumerate(groups):
        check_cancelled()
        s = slice(g.start, g.stop)
        z = latents[:, :, s] / LATENT_SCALE
        part = frames[:, :, s]
        out.append(decode_group(vae, z, part, w, color, tiles, self_ensemble, check_cancelled))
        progress(i + 1, len(groups))
    return torch.cat(out, dim=2)


def decode_group(
    vae: TemporalVAE,
    z: Tensor,
    frames: Tensor | None,
    w: float,
    color: ColorMode,
    tiles: Sequence[Tile],
    self_ensemble: bool = False,
    check_cancelled: Callable[[], None] = ignore,
) -> Tensor:
    """Pixels (1, 3, n, 4h, 4w) in [-1, 1] of frames that are decoded together.

    Clips and long videos are both decoded here. ``z`` (1, 4, n, h, w) is divided by the latent
    scale; ``frames`` (1, 3, n, h, w) in [-1, 1] may be None for ``vae_3d``, and there is no colour
    fix then. After a colour fix single values may lie outside of [-1, 1].

    ``self_ensemble`` takes the mean of four decodings, of the frames mirrored in every way (the
    geometric self-ensemble of EDSR, Lim et al. 2017). Frames that overflow in fp16 are NaN: decode
    them again within ``vae.in_wider()``.
    """
    pixels = tiled_decode(vae, z, frames, w, tiles, check_cancelled).clamp_(-1, 1)
    for axes in MIRRORED if self_ensemble else ():
        seen = None if frames is None else frames.flip(axes)
        mirrored = tiled_decode(vae, z.flip(axes), seen, w, tiles, check_cancelled)
        pixels += mirrored.clamp_(-1, 1).flip(axes)
    if self_ensemble:
        pixels /= 1 + len(MIRRORED)
    return pixels if frames is None else color_fix(pixels, frames, color)


def upscale(
    unet: TemporalUNet, vae: TemporalVAE, frames: Tensor, context: Tensor, **run: Any
) -> tuple[Tensor, Tensor]:
    """Upscale a clip four times, exactly as the reference does.

    Args:
        unet, vae: from ``load_unet`` and ``load_vae``.
        frames, context: as ``sample`` takes them.
        run: the other arguments of ``sample``, by name.

    Returns:
        ``(latents, frames)``: (1, 4, t, h, w) before the division by 0.08333, and
        (1, 3, t, 4h, 4w) in [-1, 1].

    Raises:
        InputError: as ``sample``.
    """
    latents = sample(unet, frames, context, **run)
    return latents, decode(vae, latents, frames)


def _check_run(
    unet: TemporalUNet,
    frames: Tensor,
    context: Tensor,
    noise: Tensor,
    low_res_noise: Tensor,
    flows: tuple[Tensor, Tensor] | None,
    propagation_steps: Sequence[int],
    steps: int,
) -> None:
    if frames.ndim != 5 or frames.shape[0] != 1 or frames.shape[1] != 3 or 0 in frames.shape:
        raise InputError(f"frames are {tuple(frames.shape)}: expected (1, 3, t, h, w), t >= 1.")
    in_range(frames, "frames", least=-1, dim=2)
    t, h, w = frames.shape[2:]
    expected = {
        "noise": (noise, (1, unet.params.out_channels, t, h, w)),
        "low_res_noise": (low_res_noise, (1, 3, t, h, w)),
        "context": (context, (2, context.shape[-2], unet.params.context_dim)),
    }
    if flows is not None:
        expected["forward flow"] = (flows[0], (1, 2, t - 1, h, w))
        expected["backward flow"] = (flows[1], (1, 2, t - 1, h, w))
    for name, (got, want) in expected.items():
        if tuple(got.shape) != want:
            raise InputError(f"{name} is {tuple(got.shape)}: expected {want} for these frames.")
    check_steps(propagation_steps, steps)
    if propagation_steps and flows is None:
        raise InputError(
            "propagation_steps are given, but no flows: pass the flows, or leave "
            "propagation_steps empty."
        )


def bicubic(low_res: Tensor) -> Tensor:
    """Plain bicubic upscaling of (1, 3, t, h, w), the baseline everything is compared with."""
    flat = low_res.transpose(1, 2).flatten(0, 1)
    return enlarge(flat).unflatten(0, (low_res.shape[0], low_res.shape[2])).transpose(1, 2)
