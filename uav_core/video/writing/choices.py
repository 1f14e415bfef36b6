"""The user's choices for the encoded video, and the settings that follow from them for a source."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from os import environ
from typing import Any

import av
import torch
from av.codec.codec import UnknownCodecError
from av.codec.context import Flags
from av.error import FFmpegError

from ..color import BT709, Color, output_color, tag
from ..errors import EncodeParamsError
from ..reading.probe import VideoInfo
from ..reading.side_data import in_units

_X26X_PRESETS = tuple(
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"]
)
_TASKS = "/proc/self/task"
_SUBSAMPLED = ("yuv420p", "yuv420p10le", "yuv422p", "yuv422p10le")
_DENSE = ("yuv444p", "yuv444p10le")


# x264's AVX-512 code reads past the end of small pictures when it weighs their blocks (mbtree). The
# memory there would change the result: the same frames would not give the same bytes.
_X264 = "asm=avx2" if "AVX512" in torch.backends.cpu.get_cpu_capability() else ""


@dataclass(frozen=True)
class Codec:
    """What one codec offers. ``crf`` is (lowest, highest, default), None if it has no CRF."""

    encoder: str
    containers: tuple[str, ...]
    pixel_formats: tuple[str, ...]
    auto: tuple[str, str]
    """Pixel format for 8-bit and for deeper sources."""
    options: dict[str, str]
    """Encoder options by FFmpeg's names; {preset}, {crf}, {threads} and so on are filled in."""
    crf: tuple[int, int, int] | None = None
    presets: tuple[str, ...] = ()
    preset: str = ""
    least: int = 16
    """Smallest side in pixels."""
    bits_per_pixel: float = 1.0
    """An upper estimate for a frame at the default quality."""
    light: tuple[str, str, str] | None = None
    """Names for HDR metadata: the encoder option, and in it the display and the light level."""
    tells_aspect: bool = False
    """Whether the stream itself says the pixel aspect ratio, in every container."""


CODECS = {
    "h264": Codec(
        "libx264",
        (".mp4", ".mkv", ".mov"),
        _SUBSAMPLED + _DENSE,
        ("yuv420p", "yuv420p10le"),
        {"preset": "{preset}", "crf": "{crf}", "x264-params": _X264},
        (0, 51, 18),
        _X26X_PRESETS,
        "medium",
        bits_per_pixel=0.6,
        light=("x264-params", "mastering-display", "cll"),
        tells_aspect=True,
    ),
    "h265": Codec(
        "libx265",
        (".mp4", ".mkv", ".mov"),
        _SUBSAMPLED + _DENSE,
        ("yuv420p", "yuv420p10le"),
        {
            "preset": "{preset}",
            "crf": "{crf}",
            "x265-params": "log-level=error:info=0:open-gop=0:"
            "pools={pool}:frame-threads={frame_threads}",
        },
        (0, 51, 20),
        _X26X_PRESETS,
        "medium",
        64,  # below that width x265 writes past the end of its memory
        bits_per_pixel=0.5,
        light=("x265-params", "master-display", "max-cll"),
        tells_aspect=True,
    ),
    "av1": Codec(
        "libsvtav1",
        (".mp4", ".mkv"),
        ("yuv420p", "yuv420p10le"),
        ("yuv420p", "yuv420p10le"),
        {"preset": "{preset}", "crf": "{crf}", "svtav1-params": "lp={threads}"},
        (0, 63, 26),
        tuple(str(i) for i in range(14)),
        "8",
        bits_per_pixel=0.4,
        light=("svtav1-params", "mastering-display", "content-light"),
    ),
    "prores": Codec(
        "prores_ks",
        (".mov", ".mkv"),
        ("yuv422p10le", "yuv444p10le"),
        ("yuv422p10le", "yuv422p10le"),
        {"profile": "{preset}", "vendor": "apl0"},
        None,
        ("proxy", "lt", "standard", "hq"),
        "hq",
        bits_per_pixel=6.0,
    ),
    "ffv1": Codec(
        "ffv1",
        (".mkv",),
        ("bgr0", "gbrp10le", "gbrp16le", *_SUBSAMPLED, *_DENSE),
        ("bgr0", "gbrp10le"),
        {"level": "3", "slices": "4", "slicecrc": "1", "g": "1"},
        bits_per_pixel=14.0,
    ),
}


@dataclass(frozen=True)
class EncodeParams:
    """How the video is encoded.

    The first six fields are choices; ``for_source`` fills in the others. "auto" is the codec's
    default; for ``pixel_format`` it follows the source's depth.

    Raises EncodeParamsError for choices that do not fit each other.
    """

    codec: str = "h264"
    container: str = ".mp4"
    crf: int | None = None
    """Lower is better and larger; None is the codec's default. ProRes and FFV1 have none."""
    pixel_format: str = "auto"
    preset: str = "auto"
    keep_range: bool = False
    """Write full range if the source has it, instead of limited range."""
    rate: Fraction = Fraction(25)
    """Frames per second, used until the frames' own times are known."""
    bit_depth: int = 8
    """Bits per channel of the source."""
    color: Color = BT709
    sample_aspect: Fraction = Fraction(1)
    mastering: str = ""
    """The display of an HDR master, as from ``mastering_display``; or ""."""
    light_level: str = ""
    """The light level of an HDR video, as from ``side_data.light_level``; or ""."""
    threads: int = 4
    """A fixed number, because the encoded bytes depend on it."""

    def __post_init__(self) -> None:
        if self.codec not in CODECS:
            raise EncodeParamsError(
                f"Codec '{self.codec}' is not known: expected one of {', '.join(CODECS)}."
            )
        codec = CODECS[self.codec]
        for what, value, choices in (
            ("container", self.container, codec.containers),
            ("pixel format", self.pixel_format, ("auto", *codec.pixel_formats)),
            ("preset", self.preset, ("auto", *codec.presets) if codec.presets else (self.preset,)),
        ):
            if value not in choices:
                expected = ", ".join(choice for choice in choices if choice != "auto")
                raise EncodeParamsError(
                    f"The {what} '{value}' cannot be used with {self.codec}: expected one of "
                    f"{expected}."
                )
        if self.crf is not None and codec.crf and not codec.crf[0] <= self.crf <= codec.crf[1]:
            raise EncodeParamsError(
                f"CRF {self.crf} for {self.codec}: expected {codec.crf[0]} (best) to "
                f"{codec.crf[1]} (smallest); {codec.crf[2]} is a good start."
            )
        if self.threads < 1:
            raise EncodeParamsError(f"The number of threads is {self.threads}: expected 1 or more.")

    def for_source(self, info: VideoInfo) -> EncodeParams:
        """The same choices with rate, depth, colour, sample aspect and HDR metadata of a source."""
        return replace(
            self,
            rate=info.rate,
            bit_depth=info.bit_depth,
            color=output_color(info.color, keep_range=self.keep_range),
            sample_aspect=info.sample_aspect,
            mastering=info.mastering,
            light_level=info.light_level,
        )

    @property
    def encoded_format(self) -> str:
        """The pixel format, with "auto" resolved."""
        if self.pixel_format == "auto":
            return CODECS[self.codec].auto[self.bit_depth > 8]
        return self.pixel_format

    @property
    def part_rate(self) -> Fraction:
        """Frames per second inside the parts, whose clock counts milliseconds."""
        return self.rate if 1 <= self.rate <= 500 else Fraction(25)

    @property
    def keeps_aspect(self) -> bool:
        """Whether the finished file says a pixel aspect ratio other than 1."""
        # PyAV cannot give a copied stream the size at which Matroska shows it.
        return self.container != ".mkv" or CODECS[self.codec].tells_aspect

    def check_size(self, width: int, height: int) -> None:
        """Raise EncodeParamsError for a size that the codec or the pixel format cannot hold."""
        least = CODECS[self.codec].least
        if min(width, height) < least:
            raise EncodeParamsError(
                f"{width}x{height} in {self.codec}: expected at least {least} pixels a side. "
                "Choose a larger size, or the codec h264."
            )
        pixels = av.VideoFormat(self.encoded_format, 2, 2)
        if width % (2 // pixels.chroma_width()) or height % (2 // pixels.chroma_height()):
            formats = [f for f in CODECS[self.codec].pixel_formats if f not in _SUBSAMPLED]
            other = f"the pixel format {formats[0]}" if formats else "the codec h264 with yuv444p"
            raise EncodeParamsError(
                f"{width}x{height} in {self.encoded_format}: this format needs even sides. Choose "
                f"{other}, or crop the video by one line."
            )

    def encoder_options(self, size: tuple[int, int]) -> dict[str, str]:
        """Encoder options by FFmpeg's names, for frames of (width, height)."""
        codec = CODECS[self.codec]
        preset = codec.preset if self.preset == "auto" else self.preset
        if self.codec == "prores" and self.encoded_format == "yuv444p10le":
            preset = "4444"
        # In pictures of two blocks' width x265's pool has no rows to share, and the bits are the
        # same without it; but its lookahead, a thread of the pool, may crash when it decides this
        # quickly.
        # See https://github.com/Multicorewareinc/x265/issues/684
        width, block = size[0], 32 if preset in ("ultrafast", "superfast") else 64
        values = {
            "preset": preset,
            "crf": self.crf if self.crf is not None or codec.crf is None else codec.crf[2],
            "threads": self.threads,
            "pool": "none" if width <= 2 * block else self.threads,
            "frame_threads": min(self.threads, 2),
        }
        found = {name: value.format(**values) for name, value in codec.options.items()}
        if codec.light:
            option, *names = codec.light
            mastering = self.mastering
            if mastering and self.codec == "av1":
                mastering = in_units(mastering)
            light = zip(names, (mastering, self.light_level), strict=True)
            parts = [found[option], *(f"{name}={value}" for name, value in light if value)]
            found[option] = ":".join(filter(None, parts))
        return {name: value for name, value in found.items() if value}


def open_encoder(context: Any, params: EncodeParams, size: tuple[int, int]) -> None:
    """Set up an encoder's context, before it opens, for frames of (width, height)."""
    # SVT-AV1 would write its settings to stderr; only this variable sets its log level.
    environ.setdefault("SVT_LOG", "1")
    context.width, context.height = size
    context.pix_fmt = params.encoded_format
    context.time_base = 1 / params.part_rate
    context.sample_aspect_ratio = params.sample_aspect
    context.thread_count = params.threads
    # Slice threads alone would be x264's low-latency, less efficient kind.
    context.thread_type = "AUTO"
    context.flags |= Flags.bitexact
    tag(context, params.color, av.VideoFormat(params.encoded_format).is_rgb)
    context.options = params.encoder_options(size)


@contextmanager
def usual_priority() -> Iterator[None]:
    """Wrap the opening of an encoder, so that it leaves no thread with a higher priority.

    SVT-AV1, if run by root, as in most containers, gives the thread that opens it and its own
    threads the highest priority of the machine (SCHED_FIFO, 99), which later threads inherit.
    Threads that wait for each other by spinning, as PyTorch's do, would then wait for ever.
    """
    if not hasattr(os, "sched_getscheduler") or not os.path.isdir(_TASKS):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    there = set(os.listdir(_TASKS))
    try:
        yield
    finally:
        changed = {"0", *os.listdir(_TASKS)} - there
        for task in map(int, changed):
            # A thread may have ended meanwhile.
            with suppress(OSError):
                if os.sched_getscheduler(task) != policy:
                    os.sched_setscheduler(task, policy, parameters)


@cache
def available_codecs() -> tuple[str, ...]:
    """The codecs in CODECS whose encoder this build of PyAV can open."""
    found = []
    for name, codec in CODECS.items():
        with suppress(FFmpegError, UnknownCodecError):
            context = av.CodecContext.create(codec.encoder, "w")
            open_encoder(context, EncodeParams(name, codec.containers[0]), (64, 64))
            with usual_priority():
                context.open()
            found.append(name)
    return tuple(found)


def check_available(params: EncodeParams) -> None:
    """Raise EncodeParamsError if this build of PyAV cannot encode with the chosen codec."""
    if params.codec not in available_codecs():
        raise EncodeParamsError(
            f"This build of PyAV cannot encode {params.codec}; it can encode "
            f"{', '.join(available_codecs()) or 'nothing'}. Choose one of those, or install PyAV "
            "from its official wheels."
        )
