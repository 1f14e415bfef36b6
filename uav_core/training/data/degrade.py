"""Degrades a clean clip as cameras, codecs and web sites do.

Second-order degradation after Real-ESRGAN (arXiv 2107.10833) and RealBasicVSR (arXiv 2111.12704):
blur, resize, noise, JPEG; resize to a quarter, blur, noise, video compression. The settings are
drawn once per clip and drift slowly from its first to its last frame, as in real footage.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...errors import InputError
from ...models.vae import UPSCALE

Range = tuple[float, float]


@dataclass(frozen=True)
class DegradationParams:
    """Ranges and probabilities. Lengths are in pixels of the picture at the step that uses them."""

    first_blur: Range = (0.2, 2.4)
    """Standard deviations of the first blur, at full size."""
    first_scale: Range = (0.4, 1.1)
    """Size after the first resize, as a share of the full size."""
    second_blur: Range = (0.2, 0.9)
    """Standard deviations of the second blur, at the low resolution."""
    second_blur_chance: float = 0.4
    noise: Range = (0.0, 12.0)
    """Standard deviation of Gaussian noise, for values from 0 to 255."""
    noise_chance: float = 0.6
    grey_noise_chance: float = 0.4
    jpeg: Range = (45.0, 95.0)
    jpeg_chance: float = 0.5
    crf: Range = (16.0, 31.0)
    """Constant rate factor of H.264; a single frame is compressed as JPEG instead."""
    video_chance: float = 0.7
    bleeding: Range = (0.0, 0.0)
    """Standard deviation of the horizontal colour blur, at the low resolution."""
    bleeding_chance: float = 0.0
    interlace: Range = (0.0, 0.0)
    """Weight of the next frame in every second line, at the low resolution."""
    interlace_chance: float = 0.0
    drift: float = 0.15
    """How far a setting may change over a clip, as a share of its range."""


# Most clips that people upscale are less damaged: mainly their resolution is low.
MILD = {
    # The output of an image or video generator: clean, sometimes a little soft.
    "clean": DegradationParams(
        first_blur=(0.2, 1.5),
        first_scale=(1.0, 1.0),
        second_blur_chance=0.0,
        noise_chance=0.0,
        jpeg_chance=0.0,
        video_chance=0.0,
    ),
    # A video from a web site: shrunk once or twice, with little noise, compressed.
    "web": DegradationParams(
        first_blur=(0.2, 1.5),
        first_scale=(0.5, 1.0),
        second_blur_chance=0.0,
        noise=(0.0, 3.0),
        noise_chance=0.5,
        jpeg_chance=0.0,
        crf=(20.0, 28.0),
        video_chance=1.0,
    ),
}

# Tape and television: soft, noisy, with colours blurred along the lines and interlacing that was
# not removed.
OLD = DegradationParams(
    first_blur=(0.6, 2.4),
    first_scale=(0.5, 1.0),
    second_blur_chance=0.2,
    noise=(2.0, 16.0),
    noise_chance=0.9,
    grey_noise_chance=0.5,
    jpeg_chance=0.0,
    bleeding=(0.8, 3.0),
    bleeding_chance=0.7,
    interlace=(0.3, 1.0),
    interlace_chance=0.5,
    crf=(18.0, 30.0),
    video_chance=0.8,
)


def random_degradation(rng: np.random.Generator) -> DegradationParams:
    """A random kind of degradation: mild, general or old footage, a third each."""
    kind = rng.integers(3)
    if kind == 0:
        return MILD[("clean", "web")[rng.integers(2)]]
    return DegradationParams() if kind == 1 else OLD


def degrade(
    clip: Tensor, rng: np.random.Generator, params: DegradationParams | None = None
) -> Tensor:
    """A degraded clip at a quarter of the size.

    Args:
        clip: (3, t, h, w) in [-1, 1], sides multiples of 8.
        rng: draws every setting and all noise; the same state gives the same clip.
        params: ranges to draw from.

    Returns:
        (3, t, h / 4, w / 4) in [-1, 1].

    Raises:
        InputError: sides that are not multiples of 8, as video codecs need even sides.
    """
    p = params or DegradationParams()
    _, t, h, w = clip.shape
    if h % (2 * UPSCALE) or w % (2 * UPSCALE):
        raise InputError(f"The clip is {w}x{h}: expected sides that are multiples of 8.")
    frames = clip.transpose(0, 1).add(1).div(2)
    frames = blur(frames, rng, p.first_blur, p.drift)
    scale = rng.uniform(*p.first_scale)
    frames = resize(frames, round(h * scale), round(w * scale), rng)
    frames = add_noise(frames, rng, p)
    if rng.random() < p.jpeg_chance:
        frames = jpeg(frames, drifting(rng, p.jpeg, t, p.drift))
    frames = resize(frames, h // UPSCALE, w // UPSCALE, rng)
    # With a chance of 0 nothing is drawn, so that clips of the other kinds stay the same.
    if p.bleeding_chance and rng.random() < p.bleeding_chance:
        frames = bleed(frames, drifting(rng, p.bleeding, t, p.drift), rng.uniform(0, 2))
    if p.interlace_chance and t > 1 and rng.random() < p.interlace_chance:
        frames = interlace(frames, rng.uniform(*p.interlace), int(rng.integers(2)))
    if rng.random() < p.second_blur_chance:
        frames = blur(frames, rng, p.second_blur, p.drift)
    if rng.random() < 0.5:
        frames = add_noise(frames, rng, p)
    if rng.random() < p.video_chance:
        if t > 1:
            frames = h264(frames, int(rng.integers(round(p.crf[0]), round(p.crf[1]) + 1)))
        else:
            frames = jpeg(frames, drifting(rng, p.jpeg, t, p.drift))
    return frames.clamp(0, 1).mul(2).sub(1).transpose(0, 1)


def drifting(rng: np.random.Generator, bounds: Range, t: int, drift: float) -> np.ndarray:
    """Values (t,) inside ``bounds``, on a line from one random value to another close to it."""
    low, high = bounds
    start = rng.uniform(low, high)
    end = start + rng.uniform(-1, 1) * drift * (high - low)
    return np.linspace(start, end, t).clip(low, high)


def gaussian_kernels(
    sigma_x: np.ndarray, sigma_y: np.ndarray, angle: np.ndarray, radius: int
) -> Tensor:
    """Rotated Gaussian kernels (t, 2 radius + 1, 2 radius + 1), each with sum 1."""
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    sx, sy, a = (
        torch.as_tensor(v, dtype=torch.float32)[:, None, None] for v in (sigma_x, sigma_y, angle)
    )
    along, across = x * a.cos() + y * a.sin(), y * a.cos() - x * a.sin()
    kernels = torch.exp(-0.5 * ((along / sx) ** 2 + (across / sy) ** 2))
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)


def blur(frames: Tensor, rng: np.random.Generator, bounds: Range, drift: float) -> Tensor:
    """Blur (t, 3, h, w), with round kernels in half of the clips and oval ones in the others."""
    from kornia.filters import filter2d

    t = len(frames)
    sigma_x = drifting(rng, bounds, t, drift)
    sigma_y = sigma_x if rng.random() < 0.5 else drifting(rng, bounds, t, drift)
    angle = drifting(rng, (0.0, np.pi), t, drift)
    radius = max(1, int(np.ceil(2.5 * max(sigma_x.max(), sigma_y.max()))))
    radius = min(radius, min(frames.shape[-2:]) - 1)
    kernels = gaussian_kernels(sigma_x, sigma_y, angle, radius)
    # Contiguous, as old releases of kornia call ``view`` on it.
    return filter2d(frames.contiguous(), kernels, border_type="reflect")


def resize(frames: Tensor, h: int, w: int, rng: np.random.Generator) -> Tensor:
    """Resize (t, 3, h, w) by area, bilinear or bicubic interpolation, chosen at random."""
    mode = ("area", "bilinear", "bicubic")[rng.integers(3)]
    if mode == "area":
        return F.interpolate(frames, (h, w), mode=mode)
    return F.interpolate(frames, (h, w), mode=mode, antialias=True, align_corners=False)


LUMA = (0.299, 0.587, 0.114)


def bleed(frames: Tensor, sigma: np.ndarray, late: float) -> Tensor:
    """Blur the colours of (t, 3, h, w) horizontally and shift them ``late`` pixels to the right.

    The brightness does not change.
    """
    luma = (frames * frames.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    t, _, h, w = frames.shape
    radius = min(max(1, math.ceil(late + 2.5 * float(sigma.max()))), w - 1)
    axis = torch.arange(-radius, radius + 1, dtype=torch.float32)
    spread = torch.as_tensor(sigma, dtype=torch.float32).clamp(min=0.1)[:, None]
    kernel = torch.exp(-0.5 * ((axis + late) / spread) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3 * h, 0)[:, None]
    lines = F.pad((frames - luma).reshape(1, t * 3 * h, w), (radius, radius), mode="replicate")
    colours = F.conv1d(lines, kernel, groups=t * 3 * h).view(t, 3, h, w)
    return luma + colours


def interlace(frames: Tensor, weight: float, field: int) -> Tensor:
    """Mix the next frame into every second line of (t, 3, h, w), from line ``field`` on."""
    out = frames.clone()
    out[:-1, :, field::2] = torch.lerp(frames[:-1, :, field::2], frames[1:, :, field::2], weight)
    return out


def add_noise(frames: Tensor, rng: np.random.Generator, p: DegradationParams) -> Tensor:
    """Add Gaussian noise, noise that grows with brightness as a sensor's does, or none."""
    if rng.random() >= p.noise_chance:
        return frames
    t, _, h, w = frames.shape
    channels = 1 if rng.random() < p.grey_noise_chance else 3
    noise = torch.from_numpy(rng.standard_normal((t, channels, h, w), dtype=np.float32))
    sigma = torch.as_tensor(drifting(rng, p.noise, t, p.drift) / 255, dtype=torch.float32)
    sigma = sigma[:, None, None, None]
    if rng.random() < 0.4:
        sigma = sigma * (2 * frames.clamp(min=0)).sqrt()
    return frames + noise * sigma


def _to_bytes(frames: Tensor) -> np.ndarray:
    """Convert (t, 3, h, w) in [0, 1] to (t, h, w, 3) uint8."""
    return frames.permute(0, 2, 3, 1).mul(255).round().clamp(0, 255).to(torch.uint8).numpy()


def _from_bytes(frames: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float().div(255)


def jpeg(frames: Tensor, quality: np.ndarray) -> Tensor:
    """Compress (t, 3, h, w) as JPEG, with one quality (0..100) per frame, and decode it."""
    out = []
    for frame, q in zip(_to_bytes(frames), quality, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=round(float(q)))
        out.append(np.asarray(Image.open(buffer)))
    return _from_bytes(out)


def h264(frames: Tensor, crf: int, rate: int = 25) -> Tensor:
    """Compress (t, 3, h, w), with even sides, as H.264 at a constant rate factor, and decode it."""
    import av

    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames.shape[-2:]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, rate)
    encoder.options = {"crf": str(crf), "preset": "fast", "threads": "1"}
    packets = []
    for i, pixels in enumerate(_to_bytes(frames)):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        picture = picture.reformat(format="yuv420p")
        picture.pts = i
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("h264", "r")
    decoder.extradata = encoder.extradata
    decoder.thread_count = 1
    pictures = [picture for packet in packets for picture in decoder.decode(packet)]
    pictures += decoder.decode(None)
    return _from_bytes([picture.to_ndarray(format="rgb24") for picture in pictures])
