"""Runs shipped workflows on a server, and checks that results are enlargements of their sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from clips import first_frame, read_clip, shrink_clip, shrunk
from graphs import Graph, long_video, shortened
from PIL import Image

from scripts.demo import ORIGINAL, SAMPLE
from scripts.server.comfy_server import ComfyServer

from .items import CheckFailedError, NotPossibleError
from .place import Place

TINY_SIZE, TINY_FRAMES = (48, 32), 3
SMALL_SIZE, SMALL_FRAMES = (96, 64), 12
"""Width and height of a small clip, and its frames, which make two segments."""
SIZE = (320, 180)
"""Width and height of a clip that is upscaled to 1280x720."""
PART = 4
"""Frames in a part of a long video, so that there are several parts."""
SAVING = ("SaveVideo", "SaveImage", "UpscaleAVideoLongVideo")
DISTANCE = 12.0
"""Largest allowed mean difference of a picture and its shrunk enlargement, in levels of 255."""


def server_of(place: Place, options: Sequence[str]) -> ComfyServer:
    """A server with these options; NotPossibleError if this ComfyUI does not know one."""
    known = (place.comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8")
    for option in options:
        if f'"{option}"' not in known:
            raise NotPossibleError(f"this ComfyUI has no option {option}")
    return place.server(*options)


def small_clip(place: Place) -> Path:
    """The beginning of the sample clip; on a CPU three frames of half the size."""
    if place.tiny:
        return shrink_clip(SAMPLE, place.clips / "tiny.mp4", TINY_FRAMES, TINY_SIZE)
    return shrink_clip(SAMPLE, place.clips / "small.mp4", SMALL_FRAMES, SMALL_SIZE)


def least_clip(place: Place) -> Path:
    """A clip of two frames of 24x16, for many runs on a CPU."""
    return shrink_clip(SAMPLE, place.clips / "least.mp4", 2, (24, 16))


def large_clip(place: Place, frames: int) -> Path:
    """A clip that is upscaled to 1280x720; on a CPU that of ``least_clip``."""
    if place.tiny:
        return least_clip(place)
    return shrink_clip(ORIGINAL, place.clips / f"large{frames}.mp4", frames, SIZE)


def workflow(place: Place, server: ComfyServer, name: str, clip: Path) -> Graph:
    """A shipped workflow on this clip; shortened on a CPU."""
    if name == "long_video":
        graph = long_video(server, clip) if place.tiny else Graph(name, server)
        graph.set("UpscaleAVideoLongVideoOptions", part_length=TINY_FRAMES if place.tiny else PART)
    else:
        graph = shortened(name, server) if place.tiny else Graph(name, server)
    if name == "single_image":
        picture = first_frame(clip, place.clips / "frame.png")
        return graph.set("LoadImage", image=server.upload(picture))
    graph.set("LoadVideo", file=server.upload(clip))
    if name == "low_vram":
        # Tiles must be smaller than the clip, as otherwise there would be only one.
        graph.set("UpscaleAVideoTiles", tile=32, overlap=8)
        graph.set("UpscaleAVideoVAEDecode", tile=32, tile_overlap=8)
    return graph


def result_of(server: ComfyServer, graph: Graph, timeout: float) -> np.ndarray:
    """Run a graph and read the pictures (t, h, w, 3) that it saved."""
    entry = server.run(graph.prompt, timeout)
    (node,) = (key for kind in SAVING for key in graph.ids(kind))
    path = server.output_path(entry, node)
    if path.suffix == ".png":
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))[None]
    return read_clip(path).pixels


def check_size(source: np.ndarray, result: np.ndarray) -> None:
    """Raise CheckFailedError unless the result has all frames, four times as large, not flat."""
    t, h, w, c = source.shape
    expected = (t, 4 * h, 4 * w, c)
    if result.shape != expected:
        raise CheckFailedError(f"the result is {result.shape}, expected {expected}")
    if result.std() == 0:
        raise CheckFailedError("the result has one colour")


def distance(source: np.ndarray, result: np.ndarray) -> float:
    """Mean difference of the source and the shrunk result, in levels of 255."""
    return float(np.abs(shrunk(result) - source).mean())
