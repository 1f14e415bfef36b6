"""One job done by several processes of a real Ray."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from generated import det

from uav_core.cli import main as cli
from uav_core.cli.workers import _work, run_workers
from uav_core.errors import InputError, MissingPackageError
from uav_core.jobs import FOLDER, list_jobs
from uav_core.video import EncodeParams, VideoReader, encode_part

pytest.importorskip("ray", reason="ray is not installed")

SCENE, SCENES = 4, 6
CUTS = ", ".join(str(SCENE * i) for i in range(1, SCENES))
FAST = ["--steps", "1", "--propagation-steps", "", "--cuts", CUTS, "--codec", "ffv1"]
FAST += ["--short-side", "40"]  # as many frames, each resized


@pytest.fixture(autouse=True)
def as_important_as_others(monkeypatch):
    """Ray's workers, 15 less by themselves, would starve on a busy machine."""
    monkeypatch.setenv("RAY_worker_niceness", "0")


@pytest.fixture
def clip(tmp_path) -> Path:
    frames = det("workers", (SCENE * SCENES, 3, 16, 24)).mul(0.3).clamp(-1, 1)
    encode_part(
        tmp_path / "clip.mkv", frames, EncodeParams("ffv1", ".mkv", rate=Fraction(10)), (24, 16)
    )
    return tmp_path / "clip.mkv"


@pytest.mark.slow
def test_two_workers_make_what_one_makes_even_if_one_is_killed(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone, shared = tmp_path / "alone" / "out.mkv", tmp_path / "shared" / "out.mkv"
    for target in (alone, shared):
        target.parent.mkdir()
    # By one worker, so that as many threads compute.
    assert run_workers(cli.main, [str(clip), str(alone), *FAST], 1) == 0

    killed: list[int] = []
    stop = threading.Event()

    def kill_one() -> None:
        while not killed and not stop.is_set():
            for process in workers():
                if list(shared.parent.glob(f"{FOLDER}/*/part_*.mkv")):
                    os.kill(process.pid, signal.SIGKILL)
                    killed.append(process.pid)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=kill_one)
    thread.start()
    try:
        assert cli.main([str(clip), str(shared), *FAST, "--workers", "2", "--device=cpu"]) == 0
    finally:
        stop.set()
        thread.join()
    assert killed, "it was over before a worker could be killed"
    assert shared.read_bytes() == alone.read_bytes()
    assert len(list(VideoReader(shared))) == SCENE * SCENES
    assert [job.status for job in list_jobs(shared.parent / FOLDER)] == ["finished"]


def workers() -> list[psutil.Process]:
    """Processes of Ray that do the work."""
    children = psutil.Process().children(recursive=True)
    return [p for p in children if p.is_running() and "_work" in " ".join(_words(p))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.slow
def test_a_cluster_of_others_is_not_joined(monkeypatch):
    """Which Ray would do by itself where it knows of one."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert run_workers(lambda words, share: len(words) + share[1], ["one", "two"], 1) == 3


def test_paths_are_those_of_the_folder_that_the_command_runs_in(tmp_path, monkeypatch):
    """A cluster's processes start where the cluster was started."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert _work(lambda words, share: len(os.listdir(words[0])), ["."], "here", 0, 1) == 0


def test_wrong_numbers_and_addresses_are_refused():
    with pytest.raises(InputError, match="expected 1 or more"):
        run_workers(cli.main, [], 0)
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nonsense"):
        with pytest.raises(InputError, match="Ray cannot be used at"):
            run_workers(cli.main, [], 1, address=address)


def test_without_ray_it_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackageError, match="Install ray"):
        run_workers(cli.main, [], 2)
