"""Upscale an hour of video, killing the command on the way: plot memory, disk space and time.

    python -m bench.hour [--frames 90000] [--kills 3] [--seed N] [--out output/hour]

The frames are small (16x16) and the networks are tiny and untrained, so that the test measures the
code around them: reading, parts, states, joining. It uses one step, the VAE for single frames, no
propagation and a cut every minute. The process is killed (SIGKILL) at random points and the same
command is run again. At the end, the frames of some scenes must equal, bit for bit, those of an
uninterrupted run of that scene alone. Writes hour.json, hour.md and hour.png into the folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import psutil
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from generated import det, generate, shapes_of  # noqa: E402

from bench.studies.long_video import moving  # noqa: E402
from bench.studies.report import mib, table  # noqa: E402
from uav_core.jobs import FOLDER, list_jobs  # noqa: E402
from uav_core.models.unet import TemporalUNet, UNetParams  # noqa: E402
from uav_core.models.vae import TemporalVAE, VAEParams  # noqa: E402
from uav_core.video import EncodeParams, VideoReader, encode_part  # noqa: E402

SIDE = 16
UNET = UNetParams(
    channels=(32,),
    resnets=1,
    attention=(True,),
    text_only=(False,),
    context_dim=64,
    heads=1,
    time_dim=32,
)
VAE = VAEParams(channels=(32, 32, 32), resnets=1, temporal=False)
log = logging.getLogger("bench_hour")


@dataclass(frozen=True)
class Sample:
    """One sample of the run: seconds of work, frames in finished parts, bytes."""

    seconds: float
    frames: int
    memory: int
    disk: int
    run: int


def write_inputs(folder: Path) -> list[str]:
    """Write the weights. Returns the options that name them and keep the run small."""
    unet, vae, texts = (folder / f"{name}.safetensors" for name in ("unet", "vae", "texts"))
    save_file(generate("hour.", shapes_of(TemporalUNet(UNET, device="meta"))), unet)
    save_file(generate("hour.", shapes_of(TemporalVAE(VAE, device="meta"))), vae)
    keys = ("null_text_embedding", "negative_text_embedding")
    save_file({key: det(key, (8, UNET.context_dim)) for key in keys}, texts)
    words = ["--unet", str(unet), "--vae", str(vae), "--texts", str(texts), "--steps", "1"]
    return [*words, "--propagation-steps", "", "--cut-detection", "off"]


def write_clip(path: Path, first: int, stop: int, length: int) -> None:
    """Write the frames from ``first`` to ``stop``, losslessly."""
    params = EncodeParams("ffv1", ".mkv", rate=Fraction(25))
    encode_part(path, moving(first, stop, length, SIDE, SIDE), params, (SIDE, SIDE))


def command(source: Path, target: Path, words: list[str]) -> list[str]:
    """The command that upscales a file."""
    return [sys.executable, "-m", "uav_core.cli", str(source), str(target), *words]


def disk_used(folder: Path) -> int:
    """Bytes below ``folder``."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue  # replaced in the meantime
    return total


def watch(
    words: list[str], folder: Path, kills: list[int], took: list[Sample], pause: float
) -> None:
    """Run the command until it has finished, and kill it at the times in ``kills``.

    A sample is added to ``took`` every ``pause`` seconds.
    """
    worked, run = 0.0, 0
    while True:
        started = time.monotonic()
        with (folder.parent / f"log{run}.txt").open("wb") as said:
            process = subprocess.Popen(words, cwd=ROOT, stderr=said)
        handle, killed = psutil.Process(process.pid), False
        while process.poll() is None:
            try:
                memory = handle.memory_info().rss
            except psutil.Error:
                break
            if not memory:
                continue  # the process has just ended
            done = sum(job.frames_done for job in list_jobs(folder / FOLDER))
            at = worked + time.monotonic() - started
            took.append(Sample(at, done, memory, disk_used(folder), run))
            if kills and done >= kills[0]:
                process.kill()
                kills.pop(0)
                killed = True
            try:
                process.wait(pause)
            except subprocess.TimeoutExpired:
                continue
        code = process.wait()
        worked += time.monotonic() - started
        run += 1
        if not killed:
            if code:
                raise SystemExit(f"run {run} ended with code {code}: see {said.name}")
            return
        log.info("killed after %.0f s at %d frames", worked, took[-1].frames)


def check_scenes(
    result: Path, frames: int, length: int, count: int, words: list[str], folder: Path
) -> list[int]:
    """Compare ``count`` scenes with runs of each alone. Returns their numbers.

    Raises SystemExit if one differs, or if the result does not have ``frames`` frames.
    """
    scenes = sorted(random.Random(7).sample(range(frames // length), count))
    whole, at = iter(VideoReader(result)), 0
    for scene in scenes:
        first = scene * length
        source, target = folder / f"scene{scene}.mkv", folder / f"scene{scene}_4x.mp4"
        write_clip(source, first, first + length, length)
        subprocess.run(command(source, target, words), cwd=ROOT, check=True, capture_output=True)
        next(islice(whole, first - at, first - at), None)
        for k, alone in enumerate(VideoReader(target)):
            there = next(whole, None)
            if there is None or not torch.equal(there, alone):
                raise SystemExit(
                    f"frame {k} of scene {scene} differs from a separate run of this scene"
                )
        at = first + length
    if (found := at + sum(1 for _ in whole)) != frames:
        raise SystemExit(f"the result has {found} frames, expected {frames}")
    return scenes


def draw(took: list[Sample], path: Path) -> None:
    """Draw frames, memory and disk over time, one below the other, with red lines at kills."""
    width, height, left = 900, 150, 110
    picture = Image.new("RGB", (width, 3 * height), "white")
    pen, last = ImageDraw.Draw(picture), max(s.seconds for s in took)
    curves = {
        "frames done": [s.frames for s in took],
        "memory, MiB": [s.memory / 2**20 for s in took],
        "disk, MiB": [s.disk / 2**20 for s in took],
    }
    for row, (name, values) in enumerate(curves.items()):
        top, bottom, most = row * height + 12, (row + 1) * height - 14, max(values) or 1
        pen.text((6, top), f"{name}\n{most:,.0f}", fill="black")
        pen.line([(left, bottom), (width - 10, bottom)], fill="gray")
        across = [left + (width - 10 - left) * s.seconds / last for s in took]
        for before, now, x in zip(took, took[1:], across[1:], strict=False):
            if before.run != now.run:
                pen.line([(x, top), (x, bottom)], fill="red")
        points = [
            (x, bottom - (bottom - top) * v / most) for x, v in zip(across, values, strict=True)
        ]
        pen.line(points, fill="navy", width=2)
    pen.text((width - 130, 3 * height - 13), f"{last / 60:.0f} minutes", fill="black")
    picture.save(path)


def main(words: list[str] | None = None) -> int:
    """Run, compare and write the report."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--frames", type=int, default=90_000, help="number of frames; a multiple of --scene"
    )
    parser.add_argument("--scene", type=int, default=1500, help="frames in each scene")
    parser.add_argument(
        "--checked",
        type=int,
        default=4,
        help="number of scenes to compare with a run of that scene alone",
    )
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between two measurements")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the points at which the process is killed"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "hour")
    o = parser.parse_args(words)
    if o.frames % o.scene or o.frames < o.checked * o.scene:
        parser.error(
            f"--frames {o.frames}: expected a multiple of {o.scene}, at least {o.checked} times "
            f"{o.scene}"
        )
    out = o.out.resolve()
    work = out / "work"
    work.mkdir(parents=True)
    settings = write_inputs(out)
    source, target = out / "hour.mkv", work / "hour_4x.mp4"
    write_clip(source, 0, o.frames, o.scene)
    cuts = ["--cuts", ", ".join(map(str, range(o.scene, o.frames, o.scene)))]
    chance, took = random.Random(o.seed), []
    kills = sorted(chance.randrange(o.frames // 20, o.frames) for _ in range(o.kills))
    log.info("%d frames; the process is killed at frames %s", o.frames, kills)
    try:
        watch(command(source, target, [*settings, *cuts]), work, kills, took, o.pause)
    finally:
        (out / "hour.json").write_text(json.dumps([asdict(s) for s in took]))
    scenes = check_scenes(target, o.frames, o.scene, o.checked, settings, out)
    draw(took, out / "hour.png")
    tenth = [s for s in took if s.frames <= o.frames // 10]
    rows = [
        ["frames", f"{o.frames:,}"],
        ["runs", str(took[-1].run + 1)],
        ["time at work", f"{took[-1].seconds / 60:.0f} min"],
        ["per frame", f"{1000 * took[-1].seconds / o.frames:.1f} ms"],
        ["peak memory in the first tenth", mib(max(s.memory for s in tenth))],
        ["peak memory", mib(max(s.memory for s in took))],
        ["most on the disk", mib(max(s.disk for s in took))],
        ["scenes equal to a run of their own", ", ".join(map(str, scenes))],
    ]
    (out / "hour.md").write_text(text := table(["An hour, killed", "Measured"], rows))
    log.info("\n%s", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
