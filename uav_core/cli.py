"""Upscale video files from the command line.

    python -m uav_core.cli in.mp4 out.mp4
    python -m uav_core.cli folder_in folder_out

Runs the networks directly, without ComfyUI, on the GPU if there is one. What is finished is kept:
the same command again goes on. With a folder every video in it is upscaled, and one that cannot be
is reported at the end; the exit code is then 1.

    python -m uav_core.cli --jobs folder_out             # what is kept there
    python -m uav_core.cli --clean folder_out --keep-days 7
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import torch

from . import included
from .builtin_flow import BuiltinFlow
from .errors import InputError, UpscaleAVideoError
from .flow import load_flow_model
from .jobs import FOLDER, clean, human_bytes, list_jobs, weights_hash
from .longvideo import CoreEngine, LongVideo, LongVideoParams, Report
from .longvideo.params import PART_LENGTH
from .pipeline import load_unet, load_vae
from .quality_text import load_quality_text
from .scenes import METHODS, SceneParams
from .video import CODECS, EncodeParams, probe
from .workers import run_workers

log = logging.getLogger("upscale_a_video")

VIDEOS = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")


def main(words: list[str] | None = None, share: tuple[int, int] = (0, 1)) -> int:
    """Run the command; 0 if everything that was asked for is done.

    ``share`` is (number, count) of one among several workers: of a folder, each begins with
    another video.
    """
    words = sys.argv[1:] if words is None else words
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    o = parser().parse_args(words)
    try:
        if o.jobs or o.clean:
            return show_jobs(o.jobs) if o.jobs else clean_jobs(o)
        if o.input is None or o.output is None:
            raise InputError("Expected an input and an output: two files, or two folders.")
        if o.workers:
            return run_workers(
                without(words, "--workers", "--ray"),
                o.workers,
                address=o.ray,
                gpus=1 if o.device.startswith("cuda") else 0,
            )
        if o.input.is_dir():
            return upscale_folder(o, share)
        upscale(o, o.input, o.output)
    except UpscaleAVideoError as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        log.error("Stopped. What is finished is kept; run the same command to go on.")
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line; its defaults are for the included weights."""
    p = argparse.ArgumentParser(
        prog="python -m uav_core.cli",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("input", type=Path, nargs="?", help="a video, or a folder of them")
    p.add_argument("output", type=Path, nargs="?", help="the video to write, or a folder")
    p.add_argument("--steps", type=int, default=included.STEPS)
    p.add_argument("--guidance", type=float, default=included.GUIDANCE)
    p.add_argument("--noise-level", type=int, default=included.NOISE_LEVEL)
    p.add_argument("--propagation-steps", default=f"last {included.PROPAGATED}", help="'' for none")
    p.add_argument("--color-fix", choices=("none", "adain", "wavelet"), default=included.COLOR_FIX)
    p.add_argument(
        "--frames-per-group",
        type=int,
        default=included.FRAMES_PER_GROUP,
        help="frames decoded together",
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--tile", type=int, default=0, help="side in pixels of the input; 0: none")
    p.add_argument("--cut-detection", choices=METHODS, default="auto")
    p.add_argument("--cuts", default="", help="cuts by hand, frames or times: '340, 0:12.5'")
    p.add_argument("--codec", choices=tuple(CODECS), default="h264")
    p.add_argument("--crf", type=int, help="quality; lower is better and larger")
    p.add_argument("--pixel-format", default="auto")
    p.add_argument("--part-length", type=int, default=PART_LENGTH, help="frames kept together")
    weights = p.add_argument_group("weights; the included ones where left out")
    weights.add_argument("--unet", type=Path)
    weights.add_argument("--vae", type=Path)
    weights.add_argument("--flow", type=Path, help="RAFT; the built-in flow where left out")
    weights.add_argument(
        "--texts", type=Path, help="safetensors with null_ and negative_text_embedding"
    )
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--half", action="store_true", help="the U-Net in fp16")
    several = p.add_argument_group("several processes or GPUs, by Ray")
    several.add_argument("--workers", type=int, default=0, help="processes, a GPU or a core each")
    several.add_argument("--ray", default="", metavar="ADDRESS", help="of a running cluster")
    kept = p.add_argument_group("jobs that are kept")
    kept.add_argument("--jobs", type=Path, metavar="FOLDER", help="list the jobs of a folder")
    kept.add_argument("--clean", type=Path, metavar="FOLDER", help="remove jobs of a folder")
    kept.add_argument("--keep-days", type=float, default=0, help="keep those used since")
    kept.add_argument("--finished-only", action="store_true")
    kept.add_argument("--dry-run", action="store_true", help="only say what would go")
    return p


def upscale(o: argparse.Namespace, source: Path, target: Path) -> Report:
    """One file into one, under the very name that was asked for."""
    params = LongVideoParams(
        steps=o.steps,
        guidance=o.guidance,
        noise_level=o.noise_level,
        seed=o.seed,
        propagation_steps=o.propagation_steps,
        color=o.color_fix,
        frames_per_group=o.frames_per_group,
        tile=o.tile,
        scenes=SceneParams(o.cut_detection),
        cuts=o.cuts,
        part_length=o.part_length,
    )
    encode = EncodeParams(o.codec, target.suffix.lower(), o.crf, o.pixel_format)
    probe(source)  # what cannot be read leaves no folder behind
    jobs = target.parent / FOLDER
    jobs.mkdir(parents=True, exist_ok=True)
    bar = Bar(source.name)
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
    )
    report = run.run()
    bar.close()
    log.info("%s", report.to_text())
    return report


def upscale_folder(o: argparse.Namespace, share: tuple[int, int] = (0, 1)) -> int:
    """Every video of a folder into another, going on past those that cannot be."""
    if o.output.suffix and not o.output.is_dir():
        raise InputError(f"'{o.output}' for the folder '{o.input}': expected a folder as well.")
    o.output.mkdir(parents=True, exist_ok=True)
    files = sorted(p for p in o.input.iterdir() if p.suffix.lower() in VIDEOS and p.is_file())
    if not files:
        raise InputError(f"The folder '{o.input}' has no video: expected {', '.join(VIDEOS)}.")
    first = len(files) * share[0] // share[1]
    files = files[first:] + files[:first]
    containers = CODECS[o.codec].containers
    failed: dict[Path, str] = {}
    for number, path in enumerate(files, start=1):
        log.info("%d of %d: %s", number, len(files), path.name)
        ending = path.suffix.lower() if path.suffix.lower() in containers else containers[0]
        try:
            upscale(o, path, o.output / f"{path.stem}{ending}")
        except UpscaleAVideoError as error:
            log.error("%s", error)
            failed[path] = str(error)
    log.info("%d of %d videos done.", len(files) - len(failed), len(files))
    for path, why in failed.items():
        log.error("Not done: %s: %s", path.name, why)
    return 1 if failed else 0


def engine(o: argparse.Namespace, params: LongVideoParams, cache: Path) -> CoreEngine:
    """The networks that the options name."""
    unet_path = o.unet or included.path_of(included.UNET)
    vae_path = o.vae or included.path_of(included.VAE_VIDEO)
    text_path = o.texts or included.path_of(included.TEXT)
    dtype = torch.float16 if o.half else torch.float32
    texts = load_quality_text(text_path)
    paths = {"unet": unet_path, "vae": vae_path, "texts": text_path}
    if o.flow is not None:
        paths["flow"] = o.flow
    hashes = {name: weights_hash(path, cache) for name, path in paths.items()}
    flow = BuiltinFlow() if o.flow is None else load_flow_model(o.flow)
    return CoreEngine(
        load_unet(unet_path, dtype=dtype, device=o.device),
        load_vae(vae_path, device=o.device),
        torch.stack((texts.embed("blur, worst quality"), texts.embed(""))),
        flow.to(o.device),
        steps=params.steps,
        guidance=params.guidance,
        noise_level=params.noise_level,
        lr_guidance=params.lr_guidance,
        color=params.color,
        flow_iterations=params.flow_iterations,
        hashes=hashes,
    )


def without(words: list[str], *names: str) -> list[str]:
    """A command line without some options and their values."""
    kept, values = [], 0
    for word in words:
        name, _, value = word.partition("=")
        if name in names:
            values = 0 if value else 1
        elif values:
            values = 0
        else:
            kept.append(word)
    return kept


class Bar:
    """tqdm's bar, made once the number of passes is known."""

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(total=total, desc=self.name, unit="pass", file=sys.stderr)
        self.bar.update(done - self.bar.n)

    def say(self, text: str) -> None:
        """What is being done, beside the bar."""
        if self.bar is None:
            log.info("%s: %s", self.name, text)
        else:
            self.bar.set_postfix_str(text)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()


def show_jobs(folder: Path) -> int:
    """List what is kept in an output folder."""
    for job in list_jobs(folder / FOLDER):
        log.info(
            "%s  %-10s %s  %d of %d frames, %s",
            job.id[:8],
            job.status,
            job.name,
            job.frames_done,
            job.frames,
            human_bytes(job.bytes),
        )
    return 0


def clean_jobs(o: argparse.Namespace) -> int:
    """Remove jobs of an output folder; finished videos stay where they were asked for."""
    gone = clean(
        o.clean / FOLDER,
        keep_days=o.keep_days,
        finished_only=o.finished_only,
        dry_run=o.dry_run,
    )
    word = "would be removed" if o.dry_run else "removed"
    log.info("%d jobs %s, %s.", len(gone), word, human_bytes(sum(job.bytes for job in gone)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
