"""Small video files of every kind, written with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

WIDTH, HEIGHT = 48, 32
RATE = 25


def level(i: int) -> int:
    """The brightness of frame i of ``write_clip``, 0..255; neighbours are far apart."""
    return 40 + i * 37 % 170


def picture(i: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Picture i, (height, width, 3) uint8: uniform brightness, and a red top left quarter."""
    pixels = np.full((height, width, 3), level(i), np.uint8)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    return pixels


X265 = "log-level=0:pools=none"
"""Settings of x265 for pictures as small as those of the tests: with its pool it may crash."""


def write_clip(
    path: Path,
    count: int = 12,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    times: list[int] | None = None,
    base: Fraction = Fraction(1, 12800),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    aspect: Fraction | None = None,
    tags: dict[str, int] | None = None,
    metadata: dict[str, str] | None = None,
    audio: tuple[tuple[str, float, float], ...] = (),
    container_options: dict[str, str] | None = None,
    pictures: list[av.VideoFrame] | None = None,
) -> Path:
    """Write a clip; ``audio`` is (codec, first second, seconds) of each stream."""
    if times is None:
        step = round(1 / (RATE * base))
        times = [i * step for i in range(count)]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt, stream.codec_context.time_base = pixel_format, base
        stream.time_base = base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation is not None:
            needs_rotation()
            stream.set_display_rotation(rotation)
        sounds = [_add_audio(container, name) for name, _, _ in audio]
        for i, time in enumerate(times):
            frame = (
                pictures[i]
                if pictures is not None
                else av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24")
            )
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for sound, (_, start, seconds) in zip(sounds, audio, strict=True):
            _write_tone(container, sound, start, seconds)
    return path


def needs_rotation() -> None:
    """Skip the test if this PyAV cannot write a rotation; all versions can read one."""
    if not hasattr(VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")


def _add_audio(container, codec: str):
    sound = container.add_stream(codec, rate=48000)
    sound.codec_context.layout = "mono"
    return sound


def _write_tone(container, stream, start: float, seconds: float) -> None:
    count, rate = round(seconds * 48000), 48000
    wave = np.sin(np.arange(count) * 2 * np.pi * 440 / rate).astype(np.float32) * 0.5
    for at in range(0, count, 960):
        piece = np.ascontiguousarray(wave[None, at : at + 960])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(start * rate) + at
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def plain_times(path: Path) -> list[int]:
    """The times of frames from PyAV's own decoding, in its order."""
    with av.open(str(path)) as container:
        return [f.pts for f in container.decode(container.streams.video[0])]


def seconds_shown(path: Path) -> list[Fraction]:
    """The time of each frame in seconds."""
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(container.streams.video[0])]


def sound_of(path: Path, number: int = 0) -> tuple[str, Fraction, float]:
    """(codec, first second, seconds) of an audio stream, as decoded."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[number]
        frames = list(container.decode(stream))
        start = frames[0].pts * frames[0].time_base
        length = sum(f.samples for f in frames) / stream.rate
        return stream.codec_context.codec.canonical_name, start, length


def brightness(frame: torch.Tensor) -> float:
    """Brightness of the plain part of a frame (3, h, w) in [-1, 1], on the scale of ``level``."""
    h, w = frame.shape[1:]
    return float((frame[:, h // 2 + 2 :, w // 2 + 2 :].mean() + 1) * 127.5)
