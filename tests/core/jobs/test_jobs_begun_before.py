"""Job folders as earlier versions made them: ``golden/jobs`` was written by version 0.1.0."""

import os
import shutil
from pathlib import Path

import pytest
from made_jobs import PLAN, add_part, add_state, content, finish, in_memory, inputs, untrue

from uav_core.jobs import Job, list_jobs

GOLDEN = Path(__file__).parents[2] / "golden" / "jobs"
ID = "1bdbca153ad5c1fb49d67f903d1dfc72"
THEN = 1_790_000_000
STATES = {"state_000001.bin": 6, "state_000004.bin": 8, "state_000005.bin": 14}
MANIFESTS = ("manifest.json", "manifest.json.bak")


def open_job(root, plan=lambda: PLAN) -> Job:
    wanted = inputs("cl\u00efp.mp4", tile=None, sizes=[256, 0.5], cuts={"on": True})
    return Job.open(root / "jobs", wanted, plan, output_folder=root / "videos")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with one for videos, at the time when the golden jobs were made."""
    monkeypatch.setattr("time.time", lambda: THEN + 0.5)
    with in_memory(tmp_path) as folder:
        (folder / "videos").mkdir()
        yield folder


def begun_before(root, kind: str) -> Path:
    folder = root / "jobs" / ID
    shutil.copytree(GOLDEN / kind, folder)
    if kind == "unfinished":
        for index in (0, 1, 4):
            (folder / f"part_{index:06d}.mkv").write_bytes(content("part", index))
        for name, frames_done in STATES.items():
            (folder / name).write_bytes(content("state", frames_done))
        for name in ("job.lock", "run_000.lock"):
            (folder / name).write_text("process 4711\nworks on 0\n" if "run" in name else "")
    else:
        (root / "videos" / "out.mp4").write_bytes(content("output", 0))
    return folder


def unchanged(folder: Path, kind: str) -> bool:
    return all(
        (folder / name).read_bytes() == (GOLDEN / kind / name).read_bytes() for name in MANIFESTS
    )


def test_an_unfinished_job_goes_on_to_the_bits_of_one_made_whole(root):
    folder = begun_before(root, "unfinished")
    assert [(job.status, job.frames_done) for job in list_jobs(root / "jobs")] == [
        ("unfinished", 9)
    ]
    with open_job(root, lambda: pytest.fail("it began anew")) as job:
        assert job.folder == folder and job.plan == PLAN and untrue(job) == []
        assert unchanged(folder, "unfinished")
        assert job.missing_parts() == (2, 3, 5, 6) and job.claim() == 0
        assert {s.file: s.frames_done for s in job.manifest.states} == STATES
        found = job.state_for(13)
        assert found is not None and found[0].name == "state_000004.bin"
        assert [(f.frame, f.setting) for f in job.manifest.fallbacks] == [
            (6, {"decode": {"tile": 256, "overlap": 0.25}})
        ]
        assert job.new_state_path(0).name == "state_000002.bin"
        for index in job.missing_parts():
            add_part(job, index)
        finish(job, keep_parts=False)
    assert b'"output":{"blake2b"' in (folder / "manifest.json").read_bytes()


def test_a_finished_job_is_finished(root):
    folder = begun_before(root, "finished")
    with open_job(root, lambda: pytest.fail("it began anew")) as job:
        assert job.finished and job.output_path == root.resolve() / "videos" / "out.mp4"
        assert untrue(job) == []
        assert unchanged(folder, "finished")


@pytest.mark.parametrize("kind", ["unfinished", "finished"])
def test_the_same_steps_write_the_same_manifests(root, kind):
    """So versions that run side by side, and older ones later, read what this one writes."""
    with open_job(root) as job:
        assert job.id == ID
        if kind == "unfinished":
            for index in (0, 1, 4):
                add_part(job, index)
            for frames_done in STATES.values():
                add_state(job, frames_done)
            job.add_fallback(6, {"decode": {"tile": 256, "overlap": 0.25}})
        else:
            for index in job.missing_parts():
                add_part(job, index)
            finish(job, keep_parts=False)
        assert unchanged(job.folder, kind)


@pytest.mark.skipif(os.name == "nt", reason="locks by flock")
def test_a_run_of_an_older_version_keeps_its_scene(root):
    """Which locks its files by flock, and says in its run's file what it works on."""
    import fcntl

    folder = begun_before(root, "unfinished")
    with open(folder / "run_000.lock", "r+") as older:
        fcntl.flock(older, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with open_job(root) as job:
            assert not job.alone() and job.claim() == 1
            assert older.read() == "process 4711\nworks on 0\n"
            ours = folder / "run_001.lock"
            assert ours.read_text() == f"process {os.getpid()}\nworks on 1\n"
            with open(ours, "r+") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(older, fcntl.LOCK_UN)
            assert job.alone() and job.claim() == 0
        with open(folder / "job.lock", "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            assert [job.busy for job in list_jobs(root / "jobs")] == [True]
