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
    add("input", type=Path, nargs="?", help="a video, or a folder of them")
    add("output", type=Path, nargs="?", help="the video to write, or a folder")
    add("--rate", type=rate, default=Fraction(24), help="of numbered pictures: 24, 30000/1001")
    add(
        "--along",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("FILE", "OUT"),
        help="a matte or depth clip, or numbered pictures, enlarged in step with the result; again "
        "for more",
    )
    add("--sub-folders", action="store_true", help="those of the folder as well")
    add("--steps", type=int, default=included.STEPS)
    add("--guidance", type=float, default=included.GUIDANCE)
    add("--guidance-start", type=float, default=0.0, help="share of the run, 0 to 1")
    add("--guidance-end", type=float, default=1.0, help="the same")
    add("--noise-level", type=int, default=included.NOISE_LEVEL)
    add("--propagation-steps", default=f"last {included.PROPAGATED}", help="'' for none")
    add("--color-fix", dest="color", choices=get_args(ColorMode), default=included.COLOR_FIX)
    add(
        "--detail",
        type=float,
        default=FULL,
        help="how much of the result is kept: 0 a plain enlargement, 0.5 only what is finer than "
        "the input, 1 all of it",
    )
    add(
        "--frames-per-group",
        type=int,
        default=included.FRAMES_PER_GROUP,
        help="frames decoded together",
    )
    add("--seed", type=int, default=0)
    add("--tile", type=int, default=0, help="side in pixels of the input; 0: none")
    add("--cut-detection", choices=METHODS, default="auto")
    add("--cuts", default="", help="cuts by hand, frames or times: '340, 0:12.5'")
    add(
        "--deinterlace",
        choices=get_args(Deinterlace),
        default="auto",
        help="auto: what the pictures show, else what the video says; always, top, bottom: all of "
        "it, in the order found, upper or lower lines first; film: telecined film; never",
    )
    add("--codec", choices=tuple(CODECS), default="h264")
    add("--crf", type=int, help="quality; lower is better and larger")
    add("--pixel-format", default="auto")
    add("--part-length", type=int, default=PART_LENGTH, help="frames kept together")
    size = p.add_argument_group("size of the result, 1 to 4 times the input; 4x where left out")
    one = size.add_mutually_exclusive_group()
    one.add_argument("--factor", type=float, help="times the input, such as 2")
    one.add_argument("--short-side", type=int, metavar="PIXELS", help="the aspect is kept")
    one.add_argument("--size", metavar="WIDTHxHEIGHT", help="an exact size, in square pixels")
    size.add_argument(
        "--aspect",
        choices=get_args(Aspect),
        help="if --size has another aspect: fit inside (where left out), pad with black bars, crop "
        "the edges, or stretch",
    )
    size.add_argument(
        "--resize",
        choices=get_args(When),
        help="shrink every frame before upscaling (fast; a quarter of the time for half the size), "
        "or resize it after (best; where left out)",
    )
    weights = p.add_argument_group("weights; the included ones where left out")
    weights.add_argument("--unet", help="a file; with --server an entry of its loader")
    weights.add_argument("--vae", help="likewise")
    weights.add_argument("--flow", help="RAFT, likewise; the built-in flow where left out")
    weights.add_argument(
        "--texts",
        help="safetensors with null_ and negative_text_embedding; with --server any text encoder",
    )
    where = p.add_argument_group("where it runs")
    where.add_argument("--server", metavar="URL", help="a running ComfyUI, http://127.0.0.1:8188")
    where.add_argument("--device", help="here: cuda if there is one, else cpu")
    where.add_argument("--half", action="store_true", help="here: the U-Net in fp16")
    where.add_argument("--workers", type=int, default=0, help="here: processes, by Ray")
    where.add_argument("--ray", default="", metavar="ADDRESS", help="of a running cluster")
    kept = p.add_argument_group("jobs that are kept")
    kept.add_argument("--jobs", type=Path, metavar="FOLDER", help="list the jobs of a folder")
    kept.add_argument("--clean", type=Path, metavar="FOLDER", help="remove jobs of a folder")
    kept.add_argument("--keep-days", type=float, help="keep those used since")
    kept.add_argument("--max-gb", type=float, help="remove the oldest until so many GiB are left")
    kept.add_argument("--finished-only", action="store_true")
    kept.add_argument("--dry-run", action="store_true", help="only say what would go")
    return p


def rate(text: str) -> Fraction:
    """Frames per second from a text; raises ValueError, so that argparse refuses a bad one."""
    numerator, _, denominator = text.partition("/")
    found = Fraction(numerator) / max(1, int(denominator or 1))
    if not 1 <= found <= 500:
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
