"""A long video on a real server: streamed, cancelled, and killed again and again."""

from __future__ import annotations

import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from clips import read_clip, shrink_clip
from graphs import Graph, long_video
from served import served

from scripts.env.layout import default_version
from scripts.server.comfy_server import ComfyServer, PromptFailed, PromptInterrupted

NODE, SIMPLE = "UpscaleAVideoLongVideo", "UpscaleAVideoUpscale"
KILLS = 5


@pytest.fixture(scope="session")
def small_clip(sample_clip, tmp_path_factory):
    """Twelve frames at half the size: parts of three."""
    return shrink_clip(sample_clip, tmp_path_factory.mktemp("clips") / "small.mp4", 12, (48, 32))


def finished(server: ComfyServer, entry) -> Path:
    (path,) = server.output_paths(entry)
    return path


def test_a_video_goes_through_with_sound(comfy_server, small_clip):
    graph = long_video(comfy_server, small_clip)
    entry = comfy_server.run(graph.prompt)
    source, result = read_clip(small_clip), read_clip(finished(comfy_server, entry))
    assert result.size == (source.size[0] * 4, source.size[1] * 4)
    assert (result.frames, result.fps) == (source.frames, source.fps)
    assert result.seconds_of_sound == pytest.approx(source.seconds_of_sound, abs=0.1)
    mean = [
        abs(float(np.mean(a)) - float(np.mean(b)))
        for a, b in zip(source.pixels, result.pixels, strict=True)
    ]
    assert max(mean) < 25, "every frame is as bright as its source"
    (text,) = entry["outputs"][graph.id(NODE)]["text"]
    assert f"{source.frames} frames of 192x128" in text


def test_the_same_again_is_finished_at_once(comfy_server, small_clip):
    graph = long_video(comfy_server, small_clip)
    first = finished(comfy_server, comfy_server.run(graph.prompt))
    comfy_server.free()
    before = first.stat().st_mtime_ns
    again = comfy_server.run(graph.prompt)
    assert finished(comfy_server, again) == first and first.stat().st_mtime_ns == before


def test_cancel_keeps_what_is_finished(comfy_server, small_clip):
    graph = long_video(comfy_server, small_clip).set(NODE, seed=77)
    prompt = comfy_server.queue(graph.prompt)
    jobs = comfy_server.base / "output" / "upscale_a_video_jobs"
    deadline = time.monotonic() + 600
    while not list(jobs.glob("*/part_*.mkv")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    comfy_server.interrupt()
    with pytest.raises(PromptInterrupted):
        comfy_server.wait(prompt)
    entry = comfy_server.run(graph.prompt)
    (text,) = entry["outputs"][graph.id(NODE)]["text"]
    assert "were already finished by an earlier run" in text
    path = finished(comfy_server, entry)
    continued = path.read_bytes()

    # Undisturbed, under another name, so that ComfyUI does not take it from its cache.
    shutil.rmtree(jobs)
    path.unlink()
    graph.set(NODE, filename_prefix="undisturbed")
    assert finished(comfy_server, comfy_server.run(graph.prompt)).read_bytes() == continued


@pytest.mark.parametrize("damage", ["truncated", "not a video"])
def test_an_unreadable_input_is_said(comfy_server, small_clip, tmp_path, damage):
    data = small_clip.read_bytes()
    path = tmp_path / f"{damage.replace(' ', '_')}.mp4"
    path.write_bytes(data[: len(data) // 3] if damage == "truncated" else b"text" * 300)
    graph = long_video(comfy_server, path)
    with pytest.raises(PromptFailed, match=r"Unreadable|Invalid data|moov"):
        comfy_server.run(graph.prompt)


@pytest.mark.parametrize("prefix", ["../../outside", "/tmp/outside"])
def test_the_result_stays_in_the_output_folder(comfy_server, small_clip, prefix):
    graph = long_video(comfy_server, small_clip).set(NODE, filename_prefix=prefix)
    try:
        path = finished(comfy_server, comfy_server.run(graph.prompt))
    except PromptFailed as error:
        assert "UnsafePathError" in str(error)
    else:
        assert (comfy_server.base / "output").resolve() in path.resolve().parents


def ran(server: ComfyServer, entry) -> set[str]:
    """The nodes that a prompt ran, inner ones too; not what came from the cache."""
    events = server.events.all("executing", entry["prompt"][1])
    return {event.data["node"] for event in events if event.data["node"]}


@pytest.mark.slow
def test_killed_again_and_again_it_ends_the_same(small_clip, tmp_path, artifacts):
    """Kill -9 at random points; every time the same queue again."""
    chance = random.Random(4)
    base = tmp_path / "killed"
    with served(default_version(), base, artifacts) as server:
        graph = long_video(server, small_clip)
        started = time.monotonic()
        path = finished(server, server.run(graph.prompt))
        seconds = time.monotonic() - started
        wanted, name = path.read_bytes(), path.relative_to(base)
        shutil.rmtree(base / "output")
        completed = 0
        for _ in range(KILLS):
            server.queue(graph.prompt)
            time.sleep(chance.uniform(0, 1.2 * seconds))
            assert server.process is not None
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            server.stop()
            server.start()
            if (base / name).exists():
                assert (base / name).read_bytes() == wanted
                completed += 1
                shutil.rmtree(base / "output")
        entry = server.run(graph.prompt)
        assert finished(server, entry).read_bytes() == wanted
        assert completed < KILLS, "it was never interrupted"


def at_work(server: ComfyServer) -> list[str]:
    """What the runs of the only job say that they work on."""
    files = (server.base / "output" / "upscale_a_video_jobs").glob("*/run_*.lock")
    return [line for file in files for line in file.read_text().splitlines() if "works on" in line]


@pytest.mark.slow
def test_two_servers_share_a_job_and_one_may_be_killed(small_clip, tmp_path, artifacts):
    """The same queue on two servers with one output folder."""
    version, options = default_version(), "UpscaleAVideoLongVideoOptions"
    with served(version, tmp_path / "one", artifacts) as one:
        graph = long_video(one, small_clip).set(options, cuts="3, 6, 9")
        path = finished(one, one.run(graph.prompt))
        wanted = path.read_bytes()
        shutil.rmtree(one.base / "output")
        (one.base / "output").mkdir()
        one.free()
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "output").symlink_to(one.base / "output")
        with served(version, tmp_path / "two", artifacts) as two:
            same = long_video(two, small_clip).set(options, cuts="3, 6, 9")
            prompt = one.queue(graph.prompt)
            two.queue(same.prompt)
            deadline = time.monotonic() + 600
            while len({line for line in at_work(one) if not line.endswith("-2")}) < 2:
                assert time.monotonic() < deadline, "they never worked at the same time"
                time.sleep(0.02)
            assert two.process is not None
            two.process.send_signal(signal.SIGKILL)
            two.process.wait()
            assert finished(one, one.wait(prompt)).read_bytes() == wanted


def test_one_node_does_it_all(comfy_server, small_clip):
    """The first workflow: what runs inside is shown on the node, and its models are kept."""
    graph = Graph("1_upscale_a_video", comfy_server)
    graph.set("LoadVideo", file=comfy_server.upload(small_clip))
    graph.set(SIMPLE, quality="draft", size="2x", filename_prefix="simple")
    entry = comfy_server.run(graph.prompt)
    source, result = read_clip(small_clip), read_clip(finished(comfy_server, entry))
    assert result.size == (source.size[0] * 2, source.size[1] * 2)
    assert (result.frames, result.fps) == (source.frames, source.fps)
    assert {at["display_node"] for at in entry["meta"].values()} == {graph.id(SIMPLE)}
    first = ran(comfy_server, entry)
    changed = comfy_server.run(graph.set(SIMPLE, look="creative").prompt)
    assert finished(comfy_server, changed) != finished(comfy_server, entry)
    again = ran(comfy_server, changed)
    # Seven the first time; with another look only the node itself and the one that upscales.
    assert len(first) == 7 and len(again) == 2, (first, again)
