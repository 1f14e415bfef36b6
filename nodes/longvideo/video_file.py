"""ComfyUI's VIDEO as a file that can be read frame by frame."""

from __future__ import annotations

import io as bytes_io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.codec.context
import av.error
import folder_paths
import numpy as np
import torch
from torch import Tensor

from ...uav_core.errors import InputError
from ...uav_core.longvideo import Span
from ...uav_core.video.sequences import Frames
from ...uav_core.video.writing.sound import usual_layout
from ..base.inputs import checked_frames

_SAMPLES = 1 << 16

log = logging.getLogger(__name__)


@contextmanager
def video_file(video: Any) -> Iterator[tuple[str, Span | None]]:
    """The path of a VIDEO's file, and the part of it to use (None: all of it).

    A video that comes from a file is read in place. If a node made or changed its frames, it is
    first written losslessly to ComfyUI's temp folder and removed afterwards. Raises InputError for
    anything but a VIDEO, and for numbered pictures.
    """
    if not hasattr(video, "get_components"):
        raise InputError(
            f"The video is a {type(video).__name__}: expected a VIDEO, from 'Load Video' or "
            "'Create Video'."
        )
    source = None
    if type(video).__name__ == "VideoFromFile":
        if is_edited(video):
            log.warning(
                "The video is cropped or resized by a node, so its frames are held in memory. For "
                "a long video, crop the file itself."
            )
        else:
            source = video.get_stream_source()
    span = trimmed_to(video)
    if isinstance(source, str):
        check_no_pictures(source)
        yield source, span
        return
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix="uav_", suffix=".mkv", dir=folder)
    os.close(handle)
    try:
        if isinstance(source, bytes_io.BytesIO):
            with open(path, "wb") as file:
                file.write(source.getbuffer())
            yield path, span
        else:
            write_lossless(path, video.get_components(), bit_depth(video))
            yield path, None
    finally:
        os.unlink(path)


def check_no_pictures(path: str) -> None:
    """Raise InputError for a folder, or a path of numbered pictures (with %d in the name)."""
    if os.path.isdir(path) or (not os.path.exists(path) and Frames.named(Path(path)) is not None):
        raise InputError(
            f"The video is '{path}', a folder or numbered pictures: expected a video file. To "
            "upscale EXR or 16-bit PNG, use the command line: python -m uav_core.cli FOLDER_IN "
            "FOLDER_OUT. Or load the pictures as IMAGE and connect 'Create Video'."
        )


def is_edited(video: Any) -> bool:
    """Whether a node cropped or resized the frames, so that the file no longer shows them.

    Only newer ComfyUI can do so, and only some versions report it; else sizes are compared.
    """
    if not hasattr(video, "as_cropped"):
        return False
    pending = getattr(video, "has_pending_frame_edits", None)
    if pending is not None and pending():
        return True
    try:
        whole = type(video)(video.get_stream_source())
        return video.get_dimensions() != whole.get_dimensions()
    except (ValueError, av.error.FFmpegError):
        return False  # a damaged file: the reader will report what is wrong


def trimmed_to(video: Any) -> Span | None:
    """The part of the file that a node trimmed it to (newer ComfyUI); None for all of it."""
    window = getattr(video, "get_active_trim_window", None)
    start, duration = window() if window is not None else (0, 0)
    return Span(float(start), float(duration)) if start or duration else None


def bit_depth(video: Any) -> int:
    """Bits per channel of the frames; 8 if this ComfyUI does not report them."""
    get = getattr(video, "get_bit_depth", None)
    return int(get()) if get is not None else 8


def write_lossless(path: str, components: Any, depth: int = 8) -> None:
    """Write frames (t, h, w, 3) in [0, 1], with rate and audio, as Matroska with FFV1 and PCM.

    All audio channels are kept.
    """
    images = checked_frames(components.images)
    rate = Fraction(components.frame_rate).limit_denominator(100_000)
    t, h, w, _ = images.shape
    deep = depth > 8
    with av.open(path, "w", container_options={"fflags": "bitexact"}) as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.width, stream.height = w, h
        stream.pix_fmt = "gbrp16le" if deep else "bgr0"
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        sound = getattr(components, "audio", None)
        track = None
        if sound is not None:
            wave, layout = waveform(sound)
            track = container.add_stream("pcm_f32le", rate=int(sound["sample_rate"]))
            track.layout = layout
        levels = 65535 if deep else 255
        kind, dtype = ("rgb48le", np.uint16) if deep else ("rgb24", np.uint8)
        for i in range(t):
            pixels = images[i].float().mul(levels).round().cpu().numpy()
            data: Any = np.ascontiguousarray(pixels.astype(dtype))
            frame = av.VideoFrame.from_ndarray(data, kind)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if track is not None and sound is not None:
            for start in range(0, wave.shape[1], _SAMPLES):
                piece = wave[:, start : start + _SAMPLES].float().cpu().numpy()
                data = np.ascontiguousarray(piece.T.reshape(1, -1))
                packed = av.AudioFrame.from_ndarray(data, "flt", layout)
                packed.sample_rate, packed.pts = int(sound["sample_rate"]), start
                packed.time_base = Fraction(1, packed.sample_rate)
                container.mux(track.encode(packed))
            container.mux(track.encode())


def waveform(sound: Any) -> tuple[Tensor, str]:
    """The samples of ComfyUI's AUDIO, (channels, samples), and the layout of its channels.

    Raises InputError for other shapes, for a batch of several sounds, and for NaN or infinity.
    """
    wave = sound["waveform"]
    if wave.ndim != 3 or wave.shape[0] != 1 or wave.shape[1] < 1:
        raise InputError(
            f"The audio arrived as {tuple(wave.shape)}: expected (1, channels, samples), one "
            "audio clip for the video."
        )
    if not torch.isfinite(wave).all():
        raise InputError(
            "The audio has NaN or infinity among its samples: expected finite numbers."
        )
    return wave[0], usual_layout(wave.shape[1])
