"""Upscale video files from the command line.

    python -m uav_core.cli in.mp4 out.mp4
    python -m uav_core.cli folder_in folder_out
    python -m uav_core.cli in.mp4 out.mp4 --short-side 1080     # any size from 1x to 4x

Runs the networks directly, without ComfyUI, on the GPU if there is one. Finished parts are kept:
run the same command again to continue. For a folder, every video in it is upscaled, of any format;
with --sub-folders, those in its sub-folders too. Files that are not videos are listed. Videos that
could not be upscaled are reported at the end, and the exit code is then 1.

    python -m uav_core.cli in/shot.%04d.exr out/shot.%04d.exr

reads numbered pictures, EXR or PNG, and writes half-float EXR or 16-bit PNG. A folder that contains
only such pictures works too. The video from which the output pictures are made is kept beside them.
The input or the output may be a video instead.

    python -m uav_core.cli in.mp4 out.mp4 --along depth/d.%04d.exr depth_4x/d.%04d.exr

also enlarges a matte or depth clip to match the result: it follows the result's edges and motion.

    python -m uav_core.cli in.mp4 out.mp4 --server http://127.0.0.1:8188

runs the upscale on a ComfyUI that has this pack, and fetches the result. The video is sent there;
if it is in ComfyUI's input folder, it is read from there.

    python -m uav_core.cli --jobs folder_out             # list the saved jobs
    python -m uav_core.cli --clean folder_out --keep-days 7      # --sub-folders: all below it
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, MissingPackageError, UpscaleAVideoError
from ..files import check_target, human_bytes
from ..flow.builtin import BuiltinFlow
from ..flow.estimate import load_flow_model
from ..jobs import FOLDER, clean, list_jobs
from ..longvideo import CoreEngine, LongVideo, LongVideoParams, Resizing
from ..sampling.pipeline import load_unet, load_vae
from ..sampling.presets import FLAWS
from ..video import CODECS, EncodeParams, probe
from ..video.sequences import Frames
from ..weights import included
from ..weights.hashes import weights_hash
from ..weights.text import load_quality_text
from .along import check_layers, write_layer
from .folders import job_folders, plan_folder
from .frames import upscale_frames, written
from .options import parser, run_params
from .remote import MissingPackError, ServerUnreachableError
from .remote.graph import WeightNames, long_video_graph

log = logging.getLogger("upscale_a_video")


def main(words: list[str] | None = None, share: tuple[int, int] | None = None) -> int:
    """Run the command; 0 if everything that was asked for is done.

    ``share`` is (number, count) of one of several workers, and None in the process that starts
    them. In a folder, each worker begins with another video.
    """
    words = sys.argv[1:] if words is None else words
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    o = parser(__doc__ or "").parse_args(words)
    try:
        if o.jobs or o.clean:
            return show_jobs(o) if o.jobs else clean_jobs(o)
        if o.input is None or o.output is None:
            raise InputError(
                "The input or the output is missing: expected two files, or two folders."
            )
        if o.server is not None:
            check_for_server(o)
        given = Frames.there(o.input)
        made = written(o, given)
        finished = o.output if made is None else made.master
        layers = check_layers(o, given, made, finished)
        if o.ray and not o.workers:
            raise InputError(f"--ray {o.ray} without --workers: expected the number of workers.")
        if o.workers and share is None:
            try:
                from .workers import run_workers
            except ImportError as error:
                raise missing("--workers", error) from error
            gpus = 1 if device_of(o).startswith("cuda") else 0
            return run_workers(main, words, o.workers, address=o.ray, gpus=gpus)
        if o.server is None:
            check_device(device_of(o))
        if given or made:
            upscale_frames(o, given, made, upscale_file)
        elif o.input.is_dir():
            return upscale_folder(o, *(share or (0, 1)))
        else:
            upscale_file(o, o.input, o.output)
        for layer in layers:
            with Bar(layer.source.name) as bar:
                write_layer(layer, finished, flow_of(o), torch.device(device_of(o)), bar)
    except UpscaleAVideoError as error:
        log.error("%s", error)
        return 1
    except OSError as error:
        log.error("System error: %s.", error)
        return 1
    except KeyboardInterrupt:
        log.error("Stopped. Finished parts are kept; run the same command again to continue.")
        return 130
    return 0


def upscale_file(o: argparse.Namespace, source: Path, target: Path) -> None:
    """Upscale one file into ``target``, here or on the server.

    A job that cannot be done is not sent, and leaves no folder behind.
    """
    if o.server is not None:
        try:
            from .remote.run import upscale_on_server
        except ImportError as error:
            raise missing("--server", error) from error
    params, jobs = run_params(o), target.parent / FOLDER
    encode = EncodeParams(o.codec, target.suffix.lower(), o.crf, o.pixel_format)
    info = probe(source)
    Resizing.of(params, info).encode(encode.for_source(info))
    check_target(target.parent, target.name)
    with Bar(source.name) as bar:
        if o.server is not None:
            names = {key: getattr(o, key) for key in ("unet", "vae", "texts", "flow")}
            weights = WeightNames(**{key: name for key, name in names.items() if name is not None})
            graph = long_video_graph(params, encode, weights)
            report = upscale_on_server(o.server, source, target, graph, bar, bar.beside)
            text = asyncio.run(report)
        else:
            run = LongVideo(
                source,
                target.parent,
                engine(o, params, jobs),
                params,
                encode,
                file_name=target.name,
                jobs=jobs,
                progress=bar,
                status=bar.say,
                stage=bar.beside,
            )
            text = run.run().to_text()
    log.info("%s", text)


def flow_of(o: argparse.Namespace) -> torch.nn.Module:
    """The flow model that the options name; the built-in one with --server."""
    return BuiltinFlow() if o.flow is None or o.server else load_flow_model(o.flow)


def device_of(o: argparse.Namespace) -> str:
    """The device of the networks, if they run here."""
    return o.device or default_device()


def default_device() -> str:
    """The device where none is chosen."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> None:
    """Raise InputError for a device that this PyTorch does not have."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise InputError(
            f"--device {name}: PyTorch cannot use it here ({error}). Expected cpu, cuda or another "
            "device that this PyTorch was built for; leave --device out to let it choose."
        ) from error


def check_for_server(o: argparse.Namespace) -> None:
    """Raise InputError for options that a server cannot use."""
    given = {"--device": o.device is not None, "--half": o.half, "--workers": o.workers}
    for name in (name for name, there in given.items() if there):
        raise InputError(
            f"{name} applies only to this machine, but --server is given: the server decides this "
            f"itself. Leave {name} out."
        )
    for option in ("unet", "vae", "flow", "texts"):
        name = getattr(o, option)
        if name is not None and Path(name).is_absolute():
            raise InputError(
                f"--{option} {name} is a path on this machine: with --server, expected a name "
                "from the list of the server's loader. Put the file into a models folder of the "
                "server."
            )


def missing(option: str, error: ImportError) -> UpscaleAVideoError:
    """The error for an option whose import failed.

    The registry's archive lacks some modules of this package.
    """
    if (error.name or "").startswith(f"{__package__}."):
        return MissingPartError(
            f"{option} is not part of the package in ComfyUI's registry, which does not allow "
            f"network clients ({error}). Run the command from a clone of the repository, or leave "
            f"{option} out."
        )
    return MissingPackageError(
        f"{option} needs {error.name} ({error}): install it with 'pip install {error.name}', or "
        "run the command with ComfyUI's Python, which has it."
    )


class MissingPartError(UpscaleAVideoError):
    """The installation lacks an optional part of the pack."""


def upscale_folder(o: argparse.Namespace, number: int, count: int) -> int:
    """Upscale every video of a folder into another; a failed video does not stop the others."""
    if o.output.suffix and not o.output.is_dir():
        raise InputError(
            f"The output '{o.output}' is not a folder, but the input '{o.input}' is: expected a "
            "folder for the results."
        )
    containers = CODECS[o.codec].containers
    plan = plan_folder(o.input, o.output, containers, sub_folders=o.sub_folders)
    for path, why in plan.left_out:
        log.info("Left out: %s: %s", path.relative_to(o.input), why)
    if not plan.videos:
        raise InputError(
            f"The folder '{o.input}' contains no video: expected files such as clip.mp4."
        )
    check_target(o.output, plan.videos[0][1].name)
    first = len(plan.videos) * number // count
    videos = plan.videos[first:] + plan.videos[:first]
    failed: dict[Path, str] = {}
    for number, (path, target) in enumerate(videos, start=1):
        name = path.relative_to(o.input)
        log.info("%d of %d: %s becomes %s", number, len(videos), name, target)
        try:
            upscale_file(o, path, target)
        except (ServerUnreachableError, MissingPackError):
            raise  # a fault of the server, not of the file
        except (UpscaleAVideoError, OSError) as error:
            log.error("%s", error)
            failed[name] = str(error)
        except (RuntimeError, MemoryError) as error:  # out of memory, or a fault of a library
            log.exception("%s", name)
            failed[name] = str(error) or type(error).__name__
    log.info("%d of %d videos done.", len(videos) - len(failed), len(videos))
    if plan.left_out:
        log.info(
            "%d other entries left out; the reasons are at the beginning of this log.",
            len(plan.left_out),
        )
    for name, why in failed.items():
        log.error("Failed: %s: %s", name, why)
    return 1 if failed else 0


def engine(o: argparse.Namespace, params: LongVideoParams, cache: Path) -> CoreEngine:
    """The networks that the options name."""
    paths = {
        "unet": Path(o.unet or included.path_of(included.UNET)),
        "vae": Path(o.vae or included.path_of(included.VAE_VIDEO)),
        "texts": Path(o.texts or included.path_of(included.TEXT)),
    }
    if o.flow is not None:
        paths["flow"] = Path(o.flow)
    texts, device = load_quality_text(paths["texts"]), device_of(o)
    hashes = {name: weights_hash(path, cache) for name, path in paths.items()}
    dtype = torch.float16 if o.half else torch.float32
    # What changes the frames besides; left out where usual, so that jobs made before still match.
    usual = {"unet dtype": str(torch.float32), "device": default_device()}
    chosen = {"unet dtype": str(dtype), "device": torch.device(device).type}
    for name, text in chosen.items():
        if text != usual[name]:
            hashes[name] = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return CoreEngine(
        load_unet(paths["unet"], dtype=dtype, device=device),
        load_vae(paths["vae"], device=device),
        torch.stack((texts.embed(FLAWS), texts.embed(""))),
        flow_of(o).to(device),
        params,
        hashes,
    )


class Bar:
    """A tqdm bar for one whole video."""

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
            self.bar = tqdm(total=total, desc=self.name, bar_format=form, file=sys.stderr)
        self.bar.update(done - self.bar.n)

    def say(self, text: str) -> None:
        """Log a text on lines of its own."""
        if self.bar is None:
            log.info("%s: %s", self.name, text)
        else:
            with self.bar.external_write_mode(file=sys.stderr):
                log.info("%s: %s", self.name, text)

    def beside(self, text: str) -> None:
        """Show the first line of a text, on what is under way, beside the bar."""
        if self.bar is None:
            self.say(text)
        else:
            self.bar.set_postfix_str(text.partition("\n")[0])

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the bar, which stays on the screen."""
        if self.bar is not None:
            self.bar.close()


def show_jobs(o: argparse.Namespace) -> int:
    """List the jobs that are kept in an output folder."""
    base = Path(os.path.realpath(o.jobs))
    for job in list_jobs(*job_folders(o.jobs, sub_folders=o.sub_folders)):
        log.info(
            "%s  %-10s %s  %d of %d frames, %s",
            job.id[:8],
            job.status,
            Path(os.path.relpath(job.folder.parents[1], base), job.name),
            job.frames_done,
            job.frames,
            human_bytes(job.bytes),
        )
    return 0


def clean_jobs(o: argparse.Namespace) -> int:
    """Remove jobs of an output folder; finished videos stay in the output folder."""
    if o.max_gb is not None and not 0 <= o.max_gb < float("inf"):
        raise InputError(f"--max-gb {o.max_gb}: expected 0 or more.")
    gone = clean(
        *job_folders(o.clean, sub_folders=o.sub_folders),
        keep_days=0 if o.keep_days is None and o.max_gb is None else o.keep_days,
        max_bytes=None if o.max_gb is None else round(o.max_gb * 2**30),
        finished_only=o.finished_only,
        dry_run=o.dry_run,
    )
    word = "would be removed" if o.dry_run else "removed"
    log.info("%d jobs %s, %s.", len(gone), word, human_bytes(sum(job.bytes for job in gone)))
    return 0
