"""Interlaced videos as of television cameras, tapes and telecines: frames of two fields."""

from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from av.filter import Graph

W, H = 128, 96


def _texture(seed: int, w: int, h: int, coarse: int) -> np.ndarray:
    pixels = np.random.default_rng(seed).random((h // coarse + 2, w // coarse + 2))
    pixels = np.kron(pixels, np.ones((coarse, coarse)))
    for axis in (0, 1):
        pixels = (pixels + np.roll(pixels, 1, axis) + np.roll(pixels, 2, axis)) / 3
    return (pixels * 180 + 30)[:h, :w]


_FAR, _NEAR = _texture(1, 3 * W, 2 * H, 5), _texture(2, 32, 32, 3)


def moment(at: float) -> np.ndarray:
    """Picture (h, w) of a pan at a time; a square in front moves faster, also up and down."""
    x, y = round(3.3 * at) % (2 * W), round(20 + 10 * np.sin(at / 5))
    seen = _FAR[y : y + H, x : x + W].copy()
    x, y = round(10 + 4.7 * at) % (W - 32), round(30 + 20 * np.sin(at / 3))
    seen[y : y + 32, x : x + 32] = _NEAR
    return seen


def weave(first: np.ndarray, second: np.ndarray, top: bool) -> np.ndarray:
    """A frame of two fields; with ``top`` the upper of two lines is of the first picture."""
    woven = first.copy()
    lines = slice(1, None, 2) if top else slice(0, None, 2)
    woven[lines] = second[lines]
    return woven


def of_fields(count: int, top: bool, made: Callable[[float], np.ndarray] = moment):
    """Interlaced frames as of a television camera."""
    return [weave(made(i), made(i + 0.5), top) for i in range(count)]


def telecined(count: int, top: bool, made: Callable[[float], np.ndarray] = moment, first: int = 0):
    """Telecined film: its pictures last two and three fields in turn, at 4/5 of the frame rate.

    ``first``: fields that are cut off at the start.
    """
    fields = [i for i in range(count) for _ in range(2 + i % 2)][first:]
    pairs = zip(fields[::2], fields[1::2], strict=False)
    return [weave(made(a), made(b), top) for a, b in pairs][:count]


def noisy(pictures: list[np.ndarray], much: float, jitter: int = 0) -> list[np.ndarray]:
    """Add noise as of a tape; with ``jitter`` every line is shifted sideways at random."""
    rng, made = np.random.default_rng(3), []
    for picture in pictures:
        if jitter:
            shifts = rng.integers(-jitter, jitter + 1, len(picture))
            picture = np.stack([np.roll(x, s) for x, s in zip(picture, shifts, strict=True)])
        made.append(picture + rng.normal(0, much, picture.shape))
    return made


def frames(pictures: list[np.ndarray], mark: str = "", pixel_format: str = "yuv420p"):
    """Gray frames for ``write_clip``; ``mark`` is "tff", "bff", or "" for no field order."""
    made = []
    for picture in pictures:
        gray = np.clip(np.round(picture), 0, 255).astype(np.uint8)
        colors = np.full((gray.shape[0] // 2, gray.shape[1]), 128, np.uint8)
        frame = av.VideoFrame.from_ndarray(np.concatenate((gray, colors)), format="yuv420p")
        if pixel_format != "yuv420p":
            frame = frame.reformat(format=pixel_format)
        made.append(marked(frame, mark) if mark else frame)
    return made


def marked(frame: av.VideoFrame, mark: str) -> av.VideoFrame:
    """The frame with the field order ``mark``, which encoders use."""
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(1, 25),
        ),
        graph.add("setfield", f"mode={mark}"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    made = graph.pull()
    assert isinstance(made, av.VideoFrame)
    return made
