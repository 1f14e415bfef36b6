"""Jobs whose process dies: killed from outside, or ended before any line."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_jobs import (
    LONG,
    PLAN,
    SCENES,
    add_part,
    content,
    finish,
    in_memory,
    inputs,
    untrue,
    untrue_records,
)

from uav_core.jobs import JOINING, Job, clean, list_jobs

WORKER = Path(__file__).parents[3] / "tests" / "support" / "job_worker.py"
SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@pytest.fixture
def start():
    """Starts a worker; those still running are ended with the test."""
    started = []

    def start_worker(*words) -> subprocess.Popen:
        command = [sys.executable, str(WORKER), *map(str, words)]
        pipe = subprocess.PIPE
        # Unbuffered: a line read here must not take the next ones from communicate.
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, bufsize=0))
        assert started[-1].stdout is not None
        return started[-1]

    yield start_worker
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def tmp_path(tmp_path):
    with in_memory(tmp_path) as folder:
        yield folder


def kill(process: subprocess.Popen) -> tuple[list[list[str]], str]:
    """What it said before."""
    process.send_signal(SIGKILL)
    out, err = process.communicate(timeout=20)
    return [line.split() for line in out.decode().splitlines()], err.decode()


def test_thirty_kills_lose_nothing_that_was_acknowledged(start, tmp_path):
    Job.open(tmp_path, inputs(), lambda: LONG).close()
    pick, parts, frames_done = random.Random(), set(), 0
    for _ in range(30):
        process = start("work", tmp_path)
        # Lines instead of time, so that a busy machine gets as far.
        before = [process.stdout.readline().split() for _ in range(pick.randint(1, 5))]
        time.sleep(0.003 * pick.random())
        said, err = kill(process)
        said += [[word.decode() for word in words] for words in before]
        assert not err and untrue_records(tmp_path) == []
        parts |= {int(words[1]) for words in said if words[0] == "part"}
        frames_done = max([frames_done] + [int(w[1]) for w in said if w[0] == "state"])
        with Job.open(tmp_path, inputs(), lambda: pytest.fail("it began anew")) as job:
            assert untrue(job) == []
            recorded = {part.index for part in job.manifest.parts}
            # One more may be recorded than there was time to say.
            assert parts <= recorded and len(recorded) <= len(parts) + 1
            parts = recorded
            assert max((s.frames_done for s in job.manifest.states), default=0) >= frames_done
    assert len(parts) > 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("scenario", "step", "least"), [("job", 40, 30), ("cleaning", 4, 30)])
def test_a_crash_before_any_line_leaves_a_job_that_goes_on(start, tmp_path, scenario, step, least):
    process = start("crash", tmp_path, scenario, step)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = out.decode().splitlines()
    assert [line for line in lines if not line.startswith("right")] == []
    assert len(lines) >= 2 * least
    assert lines[-2].split()[2] == "0"  # the last ran to its end


def test_runs_share_the_scenes_and_a_killed_one_gives_its_own_back(start, tmp_path):
    process = start("hold", tmp_path)
    assert process.stdout.readline() == b"open 0\n"
    assert list_jobs(tmp_path)[0].busy and clean(tmp_path, keep_days=0) == ()
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        assert job.claim() == 1 and not job.alone()
        for index in job.missing_parts(1):
            add_part(job, index)
        assert job.claim() is None
        kill(process)
        assert job.alone() and job.claim() == 0
        with Job.open(tmp_path, inputs(), lambda: PLAN) as other:  # in the same process
            assert other.claim() is None
        for index in job.missing_parts(0):
            add_part(job, index)
        assert job.claim() == JOINING
        with Job.open(tmp_path, inputs(), lambda: PLAN) as other:
            assert other.missing_parts() == () and other.claim() is None
            finish(job, keep_parts=False)
            assert other.claim() is None and other.finished
    assert [job.busy for job in list_jobs(tmp_path)] == [False]
    assert len(clean(tmp_path, keep_days=0)) == 1


def test_many_runs_write_one_manifest(start, tmp_path):
    """Four processes at once; nothing that one records is lost by what another writes."""
    processes = [start("share", tmp_path) for _ in range(4)]
    said = [process.communicate(timeout=60) for process in processes]
    assert [err.decode() for _, err in said] == [""] * 4
    made = [int(line.split()[1]) for out, _ in said for line in out.splitlines()]
    with Job.open(tmp_path, inputs(), lambda: SCENES) as job:
        assert job.missing_parts() == () and untrue(job) == []
        # Each once, by whichever run.
        assert sorted(made) == list(range(SCENES.parts))


@pytest.mark.skipif(sys.platform == "win32", reason="no folder to sync")
def test_data_is_on_the_disk_before_the_manifest_says_so(tmp_path):
    calls = []

    def profile(frame, event, function):
        if event == "c_call" and function in (os.fsync, os.replace):
            name = function.__name__
            if name == "replace":
                name = Path(frame.f_locals["target"]).name
            calls.append(name)

    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        path = job.part_path(0)
        path.write_bytes(content("part", 0))
        sys.setprofile(profile)
        try:
            job.add_part(0)
        finally:
            sys.setprofile(None)
    written = ["fsync", "manifest.json.bak", "fsync", "fsync", "manifest.json", "fsync"]
    # The part and its name, then each manifest: its content, its name, its folder.
    assert calls == ["fsync", "fsync", *written]
