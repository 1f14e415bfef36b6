"""A process that works on a job until it is killed. It starts fast, as it does not import torch."""

import os
import random
import shutil
import sys
import time
import types
from pathlib import Path

CORE = Path(__file__).parents[2] / "uav_core"
package = types.ModuleType("uav_core")
package.__path__ = [str(CORE)]
sys.modules["uav_core"] = package

from made_jobs import (  # noqa: E402
    LONG,
    PLAN,
    SCENES,
    SHORT,
    add_part,
    add_state,
    finish,
    inputs,
    untrue,
    untrue_records,
)

from uav_core.jobs import JOINING, Job, clean  # noqa: E402

CRASHED = 9


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(root: str) -> None:
    """Add parts and states, and report each when it is safe on disk."""
    with Job.open(root, inputs(), lambda: LONG) as job:
        say("open")
        for index in job.missing_parts():
            add_part(job, index)
            say("part", index)
            frames_done = min(3 * index + 3, LONG.frames - 1)
            add_state(job, frames_done)
            say("state", frames_done)


def hold(root: str) -> None:
    with Job.open(root, inputs(), lambda: PLAN) as job:
        say("open", job.claim())
        time.sleep(60)


def share(root: str) -> None:
    """Claim scenes that no other run makes, and make them, until none is left."""
    with Job.open(root, inputs(), lambda: SCENES) as job:
        while (scene := job.claim()) not in (None, JOINING):
            for index in job.missing_parts(scene):
                add_part(job, index)
                add_state(job, job.plan.part(index).start)
                say("part", index)


def whole_job(root: Path) -> None:
    with Job.open(root, inputs(), lambda: SHORT) as job:
        for index in job.missing_parts():
            add_part(job, index)
            add_state(job, job.plan.part(index).start)
        job.add_fallback(3, {"decode_group": 2})
        if not job.finished:
            finish(job, keep_parts=False)


def some_job(root: Path) -> None:
    with Job.open(root, inputs(), lambda: SHORT) as job:
        add_part(job, 0)
        add_state(job, 0)


def whole_cleaning(root: Path) -> None:
    if len(clean(root, keep_days=0)) != 1:
        raise AssertionError("the job was not removed")


SCENARIOS = {"job": whole_job, "cleaning": whole_cleaning}


def crash_at(line: int, scenario: str, root: Path) -> int:
    """Exit status of a process that ends without clean-up, before our code's ``line``-th line."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = line

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(str(CORE / "jobs")):
            return None
        if frame.f_code.co_filename.endswith("plain.py"):
            return None  # Skip thousands of lines that use no file.
        if event == "line":
            left -= 1
            if left == 0:
                os._exit(CRASHED)
        return trace

    sys.settrace(trace)
    try:
        SCENARIOS[scenario](root)
    except BaseException as error:
        say("failed", line, repr(error))
        os._exit(1)
    os._exit(0)


def crash(root: str, scenario: str, step: str) -> None:
    """Crash about every ``step``-th line; then the job must open, be correct, and continue."""
    line, status, pick = 0, CRASHED, random.Random(f"{scenario} {step}")
    while status == CRASHED:
        line += pick.randint(1, 2 * int(step) - 1)
        folder = Path(root) / str(line)
        if scenario == "cleaning":
            some_job(folder)
        status = crash_at(line, scenario, folder)
        # Cleaning removes parts before the manifest, so the manifest may name missing parts.
        wrong = untrue_records(folder) if scenario == "job" else []
        if scenario == "cleaning":
            twin = shutil.copytree(folder, f"{folder}-twin")
            clean(twin, keep_days=0)
            wrong += os.listdir(twin)
            os.rmdir(twin)
        with Job.open(folder, inputs(), lambda: SHORT) as job:
            wrong += untrue(job)
        say("wrong" if wrong else "right", line, status, *wrong)
        whole_job(folder)
        with Job.open(folder, inputs(), lambda: SHORT) as job:
            say("right" if job.finished and not untrue(job) else "wrong", line, "in the end")
        shutil.rmtree(folder)


if __name__ == "__main__":
    assert "torch" not in sys.modules, "it takes seconds to start"
    {"work": work, "hold": hold, "share": share, "crash": crash}[sys.argv[1]](*sys.argv[2:])
