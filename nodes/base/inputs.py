"""Checks of node inputs, made before any model is loaded, and changes of tensor layout."""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.values import check_finite, in_range

MIN_SIDE = 16


def video_frames(images: Tensor) -> Tensor:
    """ComfyUI's IMAGE (t, h, w, 3) in [0, 1] as (1, 3, t, h, w) in [-1, 1].

    Raises InputError as ``checked_frames`` does.
    """
    return rearrange(checked_frames(images), "t h w c -> 1 c t h w") * 2 - 1


def checked_frames(images: Tensor) -> Tensor:
    """An IMAGE (t, h, w, 3) with all values in [0, 1]; slight overshoots are clamped.

    Raises InputError for no frames, channels other than RGB, sides under 16 px, integers, NaN or
    infinity, and values far outside [0, 1].
    """
    if images.ndim != 4 or images.shape[0] == 0:
        raise InputError(
            f"The frames arrived as {tuple(images.shape)}: expected (frames, height, width, 3) "
            "with at least one frame. Check that the video loader has a video and that no node "
            "before this one removes all frames."
        )
    _, h, w, c = images.shape
    if c == 4:
        raise InputError(
            "The frames have an alpha channel: expected RGB. Put 'Split Image with Alpha' (or "
            "'Remove Alpha') before this node, and 'Upscale Alpha' at the end to add alpha again."
        )
    if c != 3:
        raise InputError(
            f"The frames have {c} channel{'s' * (c != 1)}: expected 3 (RGB). Repeat a single "
            "channel three times ('Convert Image to Mask', then 'Convert Mask to Image'), and "
            "remove channels that are not colours."
        )
    if min(h, w) < MIN_SIDE:
        raise InputError(
            f"The frames are {w}x{h}: expected at least {MIN_SIDE} px on each side. Enlarge them, "
            "or crop less, before this node."
        )
    return in_range(images, "frames")


def video_latent(latent: dict[str, Any]) -> Tensor:
    """The samples of a LATENT as (1, 4, t, h, w).

    Raises InputError for any other shape, NumericalError for NaN or infinity.
    """
    samples = latent["samples"]
    if samples.ndim != 5 or samples.shape[0] != 1 or samples.shape[1] != 4 or 0 in samples.shape:
        raise InputError(
            f"The latent is {tuple(samples.shape)}: expected one video latent, (1, 4, frames, "
            "height, width). Use the latent of 'Low-Res Conditioning' or of a sampler that uses "
            "it."
        )
    check_finite(samples, "latent", "The U-Net", dim=2)
    return samples


def check_same_clip(what: str, size: tuple[int, ...], frames: tuple[int, ...]) -> None:
    """Raise InputError unless both (t, h, w) agree."""
    if size != frames:
        raise InputError(
            f"The {what} has {_size(size)}, but the frames have {_size(frames)}: expected the "
            "same clip. Connect the same frames as in 'Low-Res Conditioning' everywhere."
        )


def _size(thw: tuple[int, ...]) -> str:
    t, h, w = thw
    return f"{t} frame{'s' * (t != 1)} of {w}x{h}"


def to_images(pixels: Tensor) -> Tensor:
    """(1, 3, t, 4h, 4w) in [-1, 1] as ComfyUI's IMAGE (t, 4h, 4w, 3) in [0, 1]."""
    return rearrange(pixels, "1 c t h w -> t h w c").add(1).div_(2).clamp_(0, 1)
