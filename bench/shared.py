"""Compare a job on one ComfyUI server with the same job shared by two: wall time and exact result.

    python -m bench.shared [--frames 24] [--scenes 8] [--size 48x32] [--steps 2]

Every server computes with one thread, so that each of two servers on two cores has as much as one
server alone. Before timing starts, the models are loaded and a short job is run.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from scripts.env.layout import ROOT, comfyui_path, default_version, environment_python
from scripts.server.comfy_server import ComfyServer

sys.path.extend([str(ROOT), str(ROOT / "tests" / "server"), str(ROOT / "tests" / "support")])
from clips import shrink_clip
from graphs import Graph, long_video

log = logging.getLogger("bench_shared")
NODE, OPTIONS = "UpscaleAVideoLongVideo", "UpscaleAVideoLongVideoOptions"


def main() -> int:
    """Measure and report. Returns 1 if the bits differ."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--frames", type=int, default=24, help="frames of the sample clip, at most 25"
    )
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--size", default="48x32")
    parser.add_argument("--steps", type=int, default=4)
    o = parser.parse_args()
    w, h = (int(side) for side in o.size.split("x"))
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        clip = shrink_clip(ROOT / "assets" / "sample.mp4", base / "clip.mp4", o.frames, (w, h))
        cuts = ", ".join(str(o.frames * i // o.scenes) for i in range(1, o.scenes))
        one, two = (server(base / name) for name in ("one", "two"))
        with one:
            (base / "two").mkdir(exist_ok=True)
            shutil.rmtree(base / "two" / "output", ignore_errors=True)
            (base / "two" / "output").symlink_to(base / "one" / "output")
            with two:
                for each in (one, two):
                    each.run(job(each, clip, cuts, 1).prompt)
                alone, single = timed([one], clip, cuts, o.steps)
                clear(base / "one" / "output")
                shared, double = timed([one, two], clip, cuts, o.steps)
    same = alone == shared
    log.info("%d frames of %s in %d scenes, %d steps", o.frames, o.size, o.scenes, o.steps)
    log.info("| servers | wall time | ratio |\n| ---: | ---: | ---: |")
    log.info("| 1 | %.1f s | 1.00 |\n| 2 | %.1f s | %.2f |", single, double, double / single)
    log.info("The files are %s.", "the same, bit for bit" if same else "NOT the same")
    return 0 if same else 1


def server(base: Path) -> ComfyServer:
    """A server that is not started yet."""
    return ComfyServer(comfyui_path(default_version()), environment_python(), base, ROOT)


def job(on: ComfyServer, clip: Path, cuts: str, steps: int, name: str = "warm") -> Graph:
    """The shipped workflow, cut into scenes by hand."""
    graph = long_video(on, clip).set(OPTIONS, cuts=cuts, part_length=48)
    return graph.set(NODE, steps=steps, propagation_steps="last 1", filename_prefix=name)


def clear(output: Path) -> None:
    """Delete all results; the folder itself stays, as two servers use it."""
    for path in output.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def timed(servers: list[ComfyServer], clip: Path, cuts: str, steps: int) -> tuple[bytes, float]:
    """The finished file, and the seconds until every server has finished."""
    # A new name, so that ComfyUI does not use its cache.
    graphs = [job(each, clip, cuts, steps, f"by_{len(servers)}") for each in servers]
    started = time.monotonic()
    prompts = [each.queue(graph.prompt) for each, graph in zip(servers, graphs, strict=True)]
    entries = [each.wait(prompt) for each, prompt in zip(servers, prompts, strict=True)]
    seconds = time.monotonic() - started
    (path,) = servers[0].output_paths(entries[0])
    return path.read_bytes(), seconds


if __name__ == "__main__":
    sys.exit(main())
