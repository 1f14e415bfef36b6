"""The command on a real server: sent, run, fetched, interrupted and gone on with."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from clips import read_clip, shrink_clip

from scripts.env.layout import ROOT
from scripts.server.comfy_server import ComfyServer
from uav_core.cli import main as cli
from uav_core.video import probe

WAIT = 600
FAST = ["--steps", "1", "--propagation-steps", "", "--cut-detection", "off", "--part-length", "3"]


@pytest.fixture(scope="module")
def clip(sample_clip, tmp_path_factory) -> Path:
    """Six frames, under a name with a space and letters of another alphabet."""
    folder = tmp_path_factory.mktemp("sent")
    return shrink_clip(sample_clip, folder / "ein Stück.mp4", 6, (48, 32))


def words(server: ComfyServer, source: Path, target: Path, *more: str) -> list[str]:
    return [str(source), str(target), "--server", server.url, *FAST, *more]


def results(server: ComfyServer) -> set[Path]:
    return set((server.base / "output" / "video").glob("*_4x_*"))


def uploads(server: ComfyServer) -> set[Path]:
    return {p for p in (server.base / "input").rglob("*") if p.is_file()}


def test_a_file_goes_there_and_comes_back(comfy_server, clip, tmp_path, caplog):
    before, sent = results(comfy_server), uploads(comfy_server)
    target = tmp_path / "large.mkv"
    with caplog.at_level(logging.INFO):
        assert cli.main(words(comfy_server, clip, target)) == 0
    (made,) = results(comfy_server) - before
    assert target.read_bytes() == made.read_bytes()
    assert read_clip(target).pixels.shape == (6, 128, 192, 3)
    assert "6 frames of 192x128" in caplog.text
    (name,) = uploads(comfy_server) - sent
    assert name.parent.name == "upscale_a_video" and name.read_bytes() == clip.read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".fetching_")]

    caplog.clear()
    stamp = target.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert cli.main(words(comfy_server, clip, target)) == 0
    assert "finished before" in caplog.text and target.stat().st_mtime_ns == stamp

    assert cli.main(words(comfy_server, clip, target, "--seed", "5")) == 1
    assert "already exists" in caplog.text and target.stat().st_mtime_ns == stamp
    again = tmp_path / "again.mkv"
    assert cli.main(words(comfy_server, clip, again)) == 0
    assert again.read_bytes() == target.read_bytes()
    assert uploads(comfy_server) - sent == {name}, "it is not sent twice"


def test_options_reach_the_nodes(comfy_server, clip, tmp_path):
    target = tmp_path / "out.mkv"
    more = ["--codec", "ffv1", "--pixel-format", "gbrp10le", "--noise-level", "7", "--guidance"]
    more += ["1.5", "--seed", "3", "--color-fix", "adain", "--tile", "32", "--cuts", "2"]
    more += ["--frames-per-group", "2", "--vae", "uav_small_vae_3d (included)"]
    more += ["--short-side", "100", "--resize", "before", "--self-ensemble"]
    assert cli.main(words(comfy_server, clip, target, *more)) == 0
    assert read_clip(target).video_codec == "ffv1"
    assert (probe(target).width, probe(target).height) == (150, 100)
    (last,) = comfy_server.get("/history", max_items="1").values()
    graph = {node["class_type"]: node["inputs"] for node in last["prompt"][2].values()}
    run = graph["UpscaleAVideoLongVideo"]
    expected = {"noise_level": 7, "guidance": 1.5, "seed": 3, "color_fix": "adain", "steps": 1}
    assert {key: run[key] for key in expected} == expected
    assert run["propagation_steps"] == ""
    options = graph["UpscaleAVideoLongVideoOptions"]
    expected = {"codec": "ffv1", "container": ".mkv", "tile": 32, "cuts": "2", "part_length": 3}
    expected |= {"output_size": "short side", "short_side": 100}
    expected |= {"resize": "before upscaling (fast)"}
    expected |= {"frames_per_group": 2, "pixel_format": "gbrp10le", "crf": -1}
    expected["self_ensemble"] = True
    assert {key: options[key] for key in expected} == expected
    assert graph["UpscaleAVideoVAELoader"]["vae_name"] == "uav_small_vae_3d (included)"


def test_a_file_of_the_input_folder_is_not_sent(comfy_server, clip, tmp_path):
    here = comfy_server.base / "input" / "mine" / "clip.mp4"
    here.parent.mkdir()
    shutil.copy(clip, here)
    sent = uploads(comfy_server)
    assert cli.main(words(comfy_server, here, tmp_path / "out.mp4", "--seed", "9")) == 0
    assert uploads(comfy_server) == sent
    (last,) = comfy_server.get("/history", max_items="1").values()
    (file,) = (n["inputs"]["file"] for n in last["prompt"][2].values() if "file" in n["inputs"])
    assert file == "mine/clip.mp4"


def test_a_folder_goes_on_past_what_the_server_refuses(
    comfy_server, clip, sample_clip, tmp_path, caplog
):
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(clip, source / "good.mp4")
    shrink_clip(sample_clip, source / "bad.mp4", 2, (16, 8))  # too small
    (source / "broken.mp4").write_bytes(b"no video" * 100)
    with caplog.at_level(logging.INFO):
        assert cli.main(words(comfy_server, source, tmp_path / "out", "--seed", "4")) == 1
    assert "1 of 3 videos done" in caplog.text
    assert "UpscaleAVideoLongVideo: InputError" in caplog.text and "16x8" in caplog.text
    assert [p.name for p in (tmp_path / "out").glob("*.mp4")] == ["good.mp4"]


def test_a_name_that_the_server_does_not_list_is_said(comfy_server, clip, tmp_path, caplog):
    assert cli.main(words(comfy_server, clip, tmp_path / "a.mp4", "--unet", "mine.bin")) == 1
    assert "mine.bin" in caplog.text and "uav_small_unet (included)" in caplog.text
    assert not list(tmp_path.glob("a*"))


def test_a_file_too_large_for_the_server_is_said(comfy_server, clip, tmp_path, caplog):
    large = tmp_path / "large.mp4"
    shutil.copy(clip, large)
    os.truncate(large, 105 << 20)
    assert cli.main(words(comfy_server, large, tmp_path / "out.mp4")) == 1
    assert "--max-upload-size 115" in caplog.text


@pytest.mark.slow
def test_interrupted_it_stops_there_and_goes_on(comfy_server, sample_clip, tmp_path):
    source = shrink_clip(sample_clip, tmp_path / "long.mp4", 16, (48, 32))
    target = tmp_path / "out.mp4"
    command = [sys.executable, "-m", "uav_core.cli", *words(comfy_server, source, target)]
    jobs = comfy_server.base / "output" / "upscale_a_video_jobs"
    known = set(jobs.glob("*/part_*.mkv"))
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell, as these tests may be, ignore it, and so do their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + WAIT
        while not set(jobs.glob("*/part_*.mkv")) - known:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WAIT)
    assert process.returncode == 130 and "run the same command again to continue" in said
    assert "Traceback" not in said
    assert re.search(r"part \d of 6", said), "what the node says is shown"
    deadline = time.monotonic() + WAIT
    while comfy_server.get("/queue")["queue_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not target.exists() and set(jobs.glob("*/part_*.mkv")) - known

    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT)
    assert again.returncode == 0 and "were already finished by an earlier run" in again.stderr
    assert re.search(r"(Sampling|Decoding): \d+%", again.stderr), "what is under way is shown"
    continued = target.read_bytes()
    shutil.rmtree(jobs)
    for path in results(comfy_server):
        path.unlink()
    comfy_server.free()
    undisturbed = tmp_path / "undisturbed.mp4"
    assert cli.main(words(comfy_server, source, undisturbed)) == 0
    assert undisturbed.read_bytes() == continued


def test_a_result_that_is_gone_is_said(comfy_server, clip, tmp_path, caplog):
    assert cli.main(words(comfy_server, clip, tmp_path / "a.mp4", "--seed", "6")) == 0
    for path in results(comfy_server):
        path.unlink()
    assert cli.main(words(comfy_server, clip, tmp_path / "b.mp4", "--seed", "6")) == 1
    assert "ComfyUI still has the result in its cache" in caplog.text
    assert [p.name for p in tmp_path.glob("*.mp4*")] == ["a.mp4"]
