"""Video files with wrong times or missing packets, written with PyAV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from video_files import RATE, picture

TS = 188
PICTURE, SOUND = 0x100, 0x101
"""FFmpeg's ids for the streams of a transport stream."""
BEEP, EVERY = 2, 10
"""Length of a beep, and distance between beeps, in frames."""


def write(
    path: Path,
    frames: Sequence[int],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    start: float = 0.0,
    sound: str = "",
    jump: tuple[int, float] = (0, 0.0),
    **opened: object,
) -> Path:
    """Write a clip of the pictures with these numbers, with a beep at every tenth.

    ``jump``: (frame, seconds); times are later by these seconds from this frame on.
    """
    fixed = codec == "mpeg2video" or path.suffix == ".avi"
    base = Fraction(1, RATE) if fixed else Fraction(1, 12800)
    with av.open(str(path), "w", **opened) as container:  # type: ignore[call-overload]
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        if codec == "mjpeg":
            stream.pix_fmt, stream.codec_context.color_range = "yuvj420p", 2
        stream.codec_context.time_base = base
        noise = container.add_stream(sound, rate=48000) if sound else None
        if noise is not None:
            noise.codec_context.layout = "mono"
        for i, number in enumerate(frames):
            image = av.VideoFrame.from_ndarray(_busy(number), format="rgb24")
            at = Fraction(i, RATE) + Fraction(start)
            at += Fraction(jump[1]) if jump[0] and i >= jump[0] else 0
            image.pts, image.time_base = round(at / base), base
            container.mux(stream.encode(image))
            if noise is not None:
                container.mux(noise.encode(_tone(number, at)))
        container.mux(stream.encode())
        if noise is not None:
            container.mux(noise.encode())
    return path


def _busy(number: int) -> np.ndarray:
    """A picture with noise in one quarter, so that it needs several packets."""
    pixels = picture(number)
    h, w = pixels.shape[0] // 2, pixels.shape[1] // 2
    pixels[h:, :w] = np.random.default_rng(number).integers(0, 256, (h, w, 3))
    return pixels


def _tone(number: int, at: Fraction) -> av.AudioFrame:
    """The 1/25 s of sound for one picture."""
    count = 48000 // RATE
    wave = np.sin(np.arange(count) * 2 * np.pi * 1000 / 48000).astype(np.float32)
    loud = 0.5 if number % EVERY < BEEP else 0.0
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(wave[None] * loud), format="fltp", layout="mono"
    )
    frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
    frame.pts = round(at * 48000)
    return frame


def joined(path: Path, parts: Sequence[Path]) -> Path:
    """Join files byte by byte, as ``cat`` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def transport(path: Path) -> list[bytes]:
    """The packets of a transport stream."""
    content = path.read_bytes()
    return [content[i : i + TS] for i in range(0, len(content), TS)]


def without(path: Path, lost: Callable[[list[int]], Sequence[int]], stream: int = PICTURE) -> Path:
    """Remove the packets that ``lost`` selects from a stream of a transport stream."""
    packets = transport(path)
    own = [i for i, p in enumerate(packets) if (p[1] & 31) << 8 | p[2] == stream]
    gone = set(lost(own))
    path.write_bytes(b"".join(p for i, p in enumerate(packets) if i not in gone))
    return path


def begins(path: Path, stream: int = PICTURE) -> list[int]:
    """Indices of the packets in which pictures of a transport stream begin."""
    return [
        i
        for i, p in enumerate(transport(path))
        if (p[1] & 31) << 8 | p[2] == stream and p[1] & 0x40
    ]


def late(path: Path, number: int, seconds: int) -> Path:
    """Change the time of the ``number``-th picture of a transport stream, to be shown later."""
    content = bytearray(path.read_bytes())
    at = content.index(b"\0\0\1\xe0", begins(path)[number] * TS) + 9
    a, b, c = content[at], *(int.from_bytes(content[at + i : at + i + 2], "big") for i in (1, 3))
    time = (a >> 1 & 7) << 30 | b >> 1 << 15 | c >> 1
    time = (time + seconds * 90000) % 2**33
    content[at] = a & 0xF1 | time >> 30 << 1
    content[at + 1 : at + 3] = (time >> 15 << 1 & 0xFFFF | 1).to_bytes(2, "big")
    content[at + 3 : at + 5] = (time << 1 & 0xFFFF | 1).to_bytes(2, "big")
    path.write_bytes(content)
    return path


def overwritten(path: Path, places: Sequence[float]) -> Path:
    """Overwrite 24 bytes of the file at each of these shares of its length."""
    content = bytearray(path.read_bytes())
    for place in places:
        at = int(len(content) * place)
        content[at : at + 24] = bytes((7 * i + 3) % 256 for i in range(24))
    path.write_bytes(content)
    return path


def in_decoding_order(path: Path, source: Path) -> Path:
    """A copy in which every picture is shown when it is decoded (MP4 without ctts)."""
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        stream = given.streams.video[0]
        target = made.add_stream_from_template(stream, opaque=True)
        number = 0
        for packet in given.demux(stream):
            if packet.size:
                packet.pts = packet.dts = number * 512
                packet.time_base, packet.duration = Fraction(1, 12800), 512
                packet.stream = target
                number += 1
                made.mux(packet)
    return path


def plain_frames(path: Path) -> list[float]:
    """The brightness of all frames that a decoder gives, in its order."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for packet in container.demux(stream):
            try:
                frames = stream.codec_context.decode(packet if packet.size else None)
            except FFmpegError:
                continue
            found += [f.to_ndarray(format="rgb24")[18:, 26:].mean() for f in frames]
    return found


def beeps(path: Path) -> list[float]:
    """The start of every beep of a file, in seconds."""
    found: list[float] = []
    loud_until = -1.0
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio[0]):
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                wave = np.abs(frame.to_ndarray().astype(np.float32)).reshape(-1)[: frame.samples]
                wave /= 32768 if "16" in frame.format.name else 1
                at = float(frame.pts * frame.time_base)
                for i in np.flatnonzero(wave > 0.1):
                    time = at + i / frame.sample_rate
                    if time > loud_until + 0.1:
                        found.append(time)
                    loud_until = time
    return found
