"""The options of the command line, and the settings made from them."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from typing import get_args

from ..errors import InputError
from ..frames.color import ColorMode
from ..frames.detail import FULL
from ..frames.output_size import Aspect, OutputSize, When
from ..longvideo import LongVideoParams
from ..longvideo.params import PART_LENGTH
from ..models.vae import UPSCALE
from ..sampling.guidance import GuidanceRange
from ..video import CODECS, Deinterlace
from ..video.scenes import METHODS, SceneParams
from ..weights import included


def parser(description: str) -> argparse.ArgumentParser:
    """The parser of the command line; its defaults are for the included weights.

    Options that equal a setting of LongVideoParams have that setting's name in the namespace.
    """
    p = argparse.ArgumentParser(
        prog="python -m uav_core.cli",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = p.add_argument
    add("input", type=Path, nargs="?", help="a video or a folder of videos")
    add("output", type=Path, nargs="?", help="the video to write, or a folder for the results")
    add(
        "--rate",
        type=rate,
        default=Fraction(24),
        help="frame rate of numbered pictures, such as 24 or 30000/1001",
    )
    add(
        "--along",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("FILE", "OUT"),
        help="a matte or depth clip, or numbered pictures, to enlarge to match the result; repeat "
        "for more",
    )
    add("--sub-folders", action="store_true", help="include sub-folders")
    add("--steps", type=int, default=included.STEPS)
    add("--guidance", type=float, default=included.GUIDANCE)
    add(
        "--guidance-start",
        type=float,
        default=0.0,
        help="point of the run where guidance begins, 0 to 1",
    )
    add(
        "--guidance-end",
        type=float,
        default=1.0,
        help="point of the run where guidance ends, 0 to 1",
    )
    add("--noise-level", type=int, default=included.NOISE_LEVEL)
    add(
        "--propagation-steps",
        default=f"last {included.PROPAGATED}",
        help="steps after which to propagate; '': none",
    )
    add("--color-fix", dest="color", choices=get_args(ColorMode), default=included.COLOR_FIX)
    add(
        "--detail",
        type=float,
        default=FULL,
        help="how much of the result is kept. 0: a plain enlargement; 0.5: only detail finer than "
        "the input; 1: the full result; up to 1.5: sharper. 0.6 suits clean input",
    )
    add(
        "--frames-per-group",
        type=int,
        default=included.FRAMES_PER_GROUP,
        help="number of frames decoded together",
    )
    add(
        "--self-ensemble",
        action="store_true",
        help="decode the frames four times, mirrored, and take the mean: steadier and closer to "
        "the original, but decoding takes four times as long",
    )
    add("--seed", type=int, default=0)
    add("--tile", type=int, default=0, help="tile size in pixels of the input; 0: no tiles")
    add("--cut-detection", choices=METHODS, default="auto")
    add(
        "--cuts",
        default="",
        help="replaces the detected cuts: frames or times, such as '340, 0:12.5'; '0': no cuts",
    )
    add(
        "--deinterlace",
        choices=get_args(Deinterlace),
        default="auto",
        help="auto: as detected in the frames, otherwise as marked in the video; always, top, "
        "bottom: deinterlace all frames, in the detected order, upper or lower lines first; film: "
        "restore telecined film; never: no change",
    )
    add("--codec", choices=tuple(CODECS), default="h264")
    add("--crf", type=int, help="quality; lower values give better quality and larger files")
    add("--pixel-format", default="auto")
    add(
        "--part-length",
        type=int,
        default=PART_LENGTH,
        help="number of frames encoded and saved together",
    )
    size = p.add_argument_group("output size, 1 to 4 times the input (default: 4x)")
    one = size.add_mutually_exclusive_group()
    one.add_argument("--factor", type=float, help="multiple of the input size, such as 2")
    one.add_argument(
        "--short-side",
        type=int,
        metavar="PIXELS",
        help="length of the shorter side; the aspect ratio is kept",
    )
    one.add_argument("--size", metavar="WIDTHxHEIGHT", help="an exact size, in square pixels")
    size.add_argument(
        "--aspect",
        choices=get_args(Aspect),
        help="if --size has another aspect ratio: fit inside (default), pad with black bars, crop "
        "the edges, or stretch",
    )
    size.add_argument(
        "--resize",
        choices=get_args(When),
        help="before: shrink every frame before upscaling (fast: 2x takes a quarter of the time of "
        "4x); after: resize every upscaled frame (best; default)",
    )
    weights = p.add_argument_group("weights (default: the included ones)")
    weights.add_argument(
        "--unet", help="a U-Net file; with --server, an entry of the U-Net loader there"
    )
    weights.add_argument(
        "--vae", help="a VAE file; with --server, an entry of the VAE loader there"
    )
    weights.add_argument(
        "--flow",
        help="a RAFT file; with --server, an entry of the flow loader there (default: the built-in "
        "flow)",
    )
    weights.add_argument(
        "--texts",
        help="a safetensors file with null_text_embedding and negative_text_embedding; with "
        "--server, any text encoder",
    )
    where = p.add_argument_group("where it runs")
    where.add_argument(
        "--server",
        metavar="URL",
        help="address of a running ComfyUI, such as http://127.0.0.1:8188",
    )
    where.add_argument(
        "--device", help="without --server: the device (default: cuda if available, else cpu)"
    )
    where.add_argument(
        "--half", action="store_true", help="without --server: run the U-Net in fp16"
    )
    where.add_argument(
        "--workers",
        type=int,
        default=0,
        help="without --server: number of worker processes, run by Ray",
    )
    where.add_argument(
        "--ray", default="", metavar="ADDRESS", help="address of a running Ray cluster"
    )
    kept = p.add_argument_group("saved jobs")
    kept.add_argument("--jobs", type=Path, metavar="FOLDER", help="list the jobs in a folder")
    kept.add_argument("--clean", type=Path, metavar="FOLDER", help="remove jobs from a folder")
    kept.add_argument("--keep-days", type=float, help="keep jobs used within this number of days")
    kept.add_argument(
        "--max-gb",
        type=float,
        help="remove the oldest jobs until the rest takes at most this many GiB",
    )
    kept.add_argument("--finished-only", action="store_true")
    kept.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    return p


def rate(text: str) -> Fraction:
    """Frames per second from a text; raises ValueError, so that argparse refuses a bad one."""
    numerator, _, denominator = text.partition("/")
    parts = int(denominator or 1)
    found = Fraction(numerator) / max(1, parts)
    if parts < 1 or not 1 <= found <= 500:
        raise ValueError
    return found


def run_params(o: argparse.Namespace) -> LongVideoParams:
    """The settings that decide the frames. Raises InputError for values out of range."""
    own = {f.name: getattr(o, f.name) for f in fields(LongVideoParams) if hasattr(o, f.name)}
    return LongVideoParams(
        **{
            **own,
            "guided": GuidanceRange(o.guidance_start, o.guidance_end),
            "scenes": SceneParams(o.cut_detection),
            "size": output_size(o),
            "resize": o.resize or "after",
        }
    )


def output_size(o: argparse.Namespace) -> OutputSize:
    """The result's size from the options; InputError if they do not fit together."""
    if o.aspect is not None and o.size is None:
        raise InputError(f"--aspect {o.aspect} is for an exact size: give --size as well.")
    if o.size is not None:
        found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", o.size.strip())
        if found is None:
            raise InputError(f"--size {o.size}: expected width x height, such as 1920x1080.")
        width, height = (int(side) for side in found.groups())
        return OutputSize("exact size", width=width, height=height, aspect=o.aspect or "fit")
    if o.short_side is not None:
        return OutputSize("short side", short_side=o.short_side)
    if o.factor is None and o.resize is not None:
        raise InputError(
            f"--resize {o.resize} without a size: give --factor, --short-side or --size as well."
        )
    return OutputSize(factor=UPSCALE if o.factor is None else o.factor)
