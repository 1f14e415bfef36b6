import os
import shutil
import sys
import time
from dataclasses import replace

import pytest
from made_jobs import PLAN, SHORT, add_part, add_state, content, finish, in_memory, inputs

from uav_core.errors import DiskFullError, InputError
from uav_core.files import check_space, human_bytes
from uav_core.jobs import Job, JobPlan, clean, disk_needed, job_id, list_jobs
from uav_core.jobs.clean import remove_job
from uav_core.jobs.lock import is_held, runs_in
from uav_core.jobs.manifest import write_manifest

DAY = 24 * 3600


@pytest.fixture
def tmp_path(tmp_path):
    with in_memory(tmp_path) as folder:
        yield folder


def make(root, steps, days_old, parts=1, done=False):
    """A job of the given age; returns its id."""
    with Job.open(root, inputs(f"{steps}.mp4", steps=steps), lambda: SHORT) as job:
        for index in range(3 if done else parts):
            add_part(job, index)
        if done:
            finish(job)
        updated = int(time.time()) - days_old * DAY - 10
        write_manifest(job.folder, replace(job.manifest, updated=updated), None)
    return job.id


def stop_before_it_began(root):
    def no_plan() -> JobPlan:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Job.open(root, inputs(steps=9), no_plan)


def ids(jobs):
    return [job.id for job in jobs]


def test_list(tmp_path):
    assert list_jobs(tmp_path / "none") == ()
    young, old = make(tmp_path, 1, 0, parts=2), make(tmp_path, 2, 5, done=True)
    (tmp_path / "video.mp4").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    damaged = tmp_path / ("0" * 32)
    damaged.mkdir()
    (damaged / "manifest.json").write_bytes(b"{")
    stop_before_it_began(tmp_path)
    jobs = {job.id: job for job in list_jobs(tmp_path)}
    assert len(jobs) == 4 and next(iter(jobs)) == old
    assert (jobs[young].name, jobs[young].frames_done, jobs[young].frames) == ("1.mp4", 6, 9)
    assert jobs[old].status == "finished" and jobs[old].frames_done == 9
    assert 5 * DAY <= jobs[old].age < 5 * DAY + 60
    assert jobs[damaged.name].status == "damaged"
    assert jobs[job_id(inputs(steps=9))].status == "empty"
    sizes = [f.stat().st_size for f in (tmp_path / old).iterdir() if f.suffix != ".lock"]
    assert jobs[old].bytes == sum(sizes) > len(content("output", 0))


def test_a_look_at_a_job_is_not_taken_for_a_run(tmp_path, monkeypatch):
    """Listing locks the files of dead runs for a moment, in which no other run may begin."""
    make(tmp_path, 1, 0)
    looked = []

    def look(folder):
        looked.append(is_held(folder / "job.lock"))
        return runs_in(folder)

    monkeypatch.setattr(sys.modules["uav_core.jobs.clean"], "runs_in", look)
    assert [job.busy for job in list_jobs(tmp_path)] == [False] and looked == [True]


def test_clean_by_age(tmp_path):
    old_done = make(tmp_path, 1, 9, done=True)
    old, young = make(tmp_path, 2, 9), make(tmp_path, 3, 1)
    assert clean(tmp_path) == ()
    assert ids(clean(tmp_path, keep_days=5, dry_run=True)) == [old_done, old]
    assert len(list_jobs(tmp_path)) == 3
    assert ids(clean(tmp_path, keep_days=5, finished_only=True)) == [old_done]
    assert ids(clean(tmp_path, keep_days=5)) == [old]
    assert ids(list_jobs(tmp_path)) == [young]
    assert sorted(os.listdir(tmp_path)) == [young]
    with pytest.raises(InputError):
        clean(tmp_path, keep_days=-1)


def test_clean_by_size_takes_the_oldest_finished_first(tmp_path):
    order = [
        make(tmp_path, 1, 3, done=True),
        make(tmp_path, 2, 1, done=True),
        make(tmp_path, 3, 9),
        make(tmp_path, 4, 4),
    ]
    total = sum(job.bytes for job in list_jobs(tmp_path))
    assert clean(tmp_path, max_bytes=total) == ()
    for least in range(1, 5):
        freed = sum(j.bytes for i in order[:least] for j in list_jobs(tmp_path) if j.id == i)
        bound = total - freed
        assert ids(clean(tmp_path, max_bytes=bound, dry_run=True)) == order[:least]
    assert ids(clean(tmp_path, max_bytes=0, finished_only=True)) == order[:2]
    assert ids(clean(tmp_path, max_bytes=0)) == order[2:]
    assert os.listdir(tmp_path) == []


def test_clean_spares_what_is_in_use_or_not_ours(tmp_path):
    make(tmp_path, 1, 9)
    with Job.open(tmp_path, inputs("1.mp4", steps=1), lambda: SHORT) as job:
        assert clean(tmp_path, keep_days=0, max_bytes=0) == ()
        add_part(job, 1)
    (job.folder / "notes.txt").write_text("mine")
    assert clean(tmp_path, keep_days=0) == ()
    (job.folder / "notes.txt").unlink()
    (job.folder / "part_000009.mkv").mkdir()
    assert clean(tmp_path, keep_days=0) == ()
    (job.folder / "part_000009.mkv").rmdir()
    # Without a manifest it may be anyone's.
    strange = tmp_path / ("f" * 32)
    strange.mkdir()
    (strange / "part_000000.mkv").write_text("mine")
    other = tmp_path / "part"
    shutil.copytree(job.folder, other)  # not called as a job
    assert ids(clean(tmp_path, keep_days=0)) == [job.id]
    assert (strange / "part_000000.mkv").exists() and (other / "manifest.json").exists()


def test_clean_spares_a_job_that_went_on_since_it_was_listed(tmp_path):
    make(tmp_path, 1, 9)
    (listed,) = list_jobs(tmp_path)
    with Job.open(tmp_path, inputs("1.mp4", steps=1), lambda: SHORT) as job:
        add_part(job, 1)
    assert not remove_job(listed, dry_run=False)
    (listed,) = list_jobs(tmp_path)
    assert listed.frames_done == 6 and remove_job(listed, dry_run=False)


def test_clean_removes_damaged_and_empty_jobs(tmp_path):
    make(tmp_path, 1, 9)
    folder = tmp_path / job_id(inputs(steps=1))
    (folder / "manifest.json").write_bytes(b"damaged")
    (folder / "manifest.json.bak").write_bytes(b"damaged")
    stop_before_it_began(tmp_path)
    assert len(clean(tmp_path, keep_days=0)) == 2
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege")
def test_clean_follows_no_link(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    name = make(outside, 1, 9)
    root.mkdir()
    (root / name).symlink_to(outside / name)
    assert list_jobs(root) == () and clean(root, keep_days=0) == ()
    (root / name).unlink()
    make(root, 1, 9)
    (root / name / "part_000005.mkv").symlink_to(outside / name / "part_000000.mkv")
    assert clean(root, keep_days=0) == ()
    assert (outside / name / "part_000000.mkv").exists()


def test_an_output_in_its_own_place_survives(tmp_path):
    out = tmp_path / "videos"
    out.mkdir()
    with Job.open(tmp_path / "jobs", inputs(), lambda: PLAN, output_folder=out) as job:
        for index in job.missing_parts():
            add_part(job, index)
        add_state(job, 0)
        finish(job)
    assert ids(clean(tmp_path / "jobs", keep_days=0)) == [job.id]
    assert (out / "out.mp4").read_bytes() == content("output", 0)


def test_space():
    plan = JobPlan(1000, 10, (range(0, 1000),))
    assert 2_000_000 <= disk_needed(plan, 1000) < 2_200_000
    less = disk_needed(plan, 1000) - disk_needed(plan, 1000, frames_done=600)
    assert less == 600_000
    assert disk_needed(plan, 0, state_bytes=10**6) - disk_needed(plan, 0) == 3 * 10**6
    with pytest.raises(InputError):
        disk_needed(plan, 1, frames_done=1001)


def test_check_space(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path / "not" / "yet" / "there", free // 2)
    with pytest.raises(
        DiskFullError, match=r"needs [\d.]+ [GT]iB but its disk has [\d.]+ .iB free"
    ):
        check_space(tmp_path, free + (2 << 30))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1023 * 1024, "1023 KiB"),
        (2.8 * 2**30, "2.8 GiB"),
        (5 * 2**40, "5 TiB"),
        (2000 * 2**40, "2000 TiB"),
    ],
)
def test_human_bytes(count, text):
    assert human_bytes(count) == text
