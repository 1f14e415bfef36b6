import itertools
import logging
import os
import random
import shutil
import subprocess
from contextlib import contextmanager

import pytest
from made_jobs import (
    PLAN,
    add_part,
    add_state,
    content,
    finish,
    in_memory,
    inputs,
    untrue,
    write,
)

from uav_core.errors import DiskFullError, FileError, InputError, UnsafePathError
from uav_core.jobs import (
    DamagedManifestError,
    Job,
    JobPlan,
    clean,
    job_id,
    list_jobs,
)

ALL = tuple(range(7))
NO_LINKS = pytest.mark.skipif(os.name == "nt", reason="links need a privilege")


@pytest.fixture
def tmp_path(tmp_path):
    with in_memory(tmp_path) as folder:
        yield folder


def names(job):
    return sorted(path.name for path in job.folder.iterdir())


def frames_done(job, frame):
    """Of the state for this frame, after a look at its content."""
    path, state = job.state_for(frame)
    assert path.read_bytes() == content("state", state.frames_done)
    return state.frames_done


def test_a_job_goes_on_where_it_was(tmp_path):
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        assert job.missing_parts() == ALL and not job.finished
        assert job.folder == tmp_path.resolve() / job_id(inputs())
        for index in (4, 0, 1):
            add_part(job, index)
        add_state(job, 6)
        for _ in range(2):
            job.add_fallback(6, {"decode_group": 2})
        assert untrue(job) == []
    with Job.open(tmp_path, inputs(name="renamed.mp4"), lambda: pytest.fail("asked")) as job:
        assert job.missing_parts() == (2, 3, 5, 6)
        assert [(p.start, p.stop) for p in job.manifest.parts] == [(0, 3), (3, 6), (11, 14)]
        assert [vars(f) for f in job.manifest.fallbacks] == [
            {"frame": 6, "setting": {"decode_group": 2}}
        ]
        assert frames_done(job, 6) == 6
        for index in job.missing_parts():
            add_part(job, index)
        finish(job)
        assert job.finished and job.missing_parts() == ()
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        assert job.finished and job.output_path == job.folder / "out.mp4"
        assert untrue(job) == [] and job.missing_parts() == ()
    with Job.open(tmp_path, inputs(steps=20), lambda: PLAN) as other:
        assert other.missing_parts() == ALL


def test_verifying_can_be_cancelled(tmp_path):
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        add_part(job, 0)
        add_part(job, 1)

    class Cancelled(OSError):
        """Of the caller, and not about any file."""

    def cancelling(after: int):
        looks = itertools.count()

        def cancel():
            if next(looks) == after:
                raise Cancelled

        return cancel

    for after in range(4):  # before a file is opened, and while it is read
        with pytest.raises(Cancelled):
            Job.open(tmp_path, inputs(), lambda: PLAN, check_cancelled=cancelling(after))
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:  # the lock was let go
        assert job.missing_parts() == ALL[2:]


def test_states_at_most_two_of_a_scene_and_the_one_that_fits(tmp_path):
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        assert job.state_for(0) is None
        for done in (0, 3, 6):
            add_state(job, done)
        assert [s.frames_done for s in job.manifest.states] == [3, 6]
        assert untrue(job) == []
        assert [frames_done(job, f) for f in (3, 5, 6, 7)] == [3, 3, 6, 6]
        assert job.state_for(2) is None  # both are past it
        assert job.state_for(8) is None  # another scene
        add_state(job, 8, scene=0)
        assert job.state_for(8) is None
        add_state(job, 8)
        assert frames_done(job, 10) == 8
        for scene, done in ((0, 9), (1, 7), (2, 8), (-1, 0)):
            with pytest.raises(InputError):
                job.set_state(scene, done)
    (job.folder / job.manifest.states[1].file).write_bytes(b"damaged")
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        assert frames_done(job, 7) == 6 and frames_done(job, 10) == 8
        assert len(job.manifest.states) == 2
        for index in job.missing_parts(0):
            add_part(job, index)
        # A scene that is done needs none.
        assert [s.scene for s in job.manifest.states] == [1] and untrue(job) == []


def test_a_state_of_the_same_frame_does_not_crowd_out_the_one_before(tmp_path):
    """A part that fails at its end saves the same state at every try."""
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        for done in (0, 3, 6, 6, 6):
            add_state(job, done)
        assert [s.frames_done for s in job.manifest.states] == [3, 6]
        assert frames_done(job, 3) == 3 and untrue(job) == []


def test_leftovers_go_and_what_is_not_ours_stays(tmp_path):
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        add_part(job, 0)
    for name in ("part_000001.mkv", "part_000002.mkv.tmp", "state_000009.bin", "x.mp4.tmp"):
        (job.folder / name).write_bytes(b"half")
    (job.folder / "notes.txt").write_text("mine")
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        assert names(job) == [
            "job.lock",
            "manifest.json",
            "manifest.json.bak",
            "notes.txt",
            "part_000000.mkv",
            "run_000.lock",
        ]


def test_a_state_that_a_kill_left_half_written_goes_too(tmp_path):
    half = ".state_000002.bin.0123abcd.partial"
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        (job.folder / half).write_bytes(b"half")
        assert list_jobs(tmp_path)[0].status == "unfinished"
    Job.open(tmp_path, inputs(), lambda: PLAN).close()
    assert half not in names(job)
    # Left after the last time that the job was opened, or alone in its folder.
    (job.folder / half).write_bytes(b"half")
    assert len(clean(tmp_path, keep_days=0)) == 1
    job.folder.mkdir()
    (job.folder / half).write_bytes(b"half")
    assert list_jobs(tmp_path)[0].status == "empty"


def test_misuse_is_named_and_changes_nothing(tmp_path):
    with Job.open(tmp_path, inputs(), lambda: PLAN, output_folder=tmp_path) as job:
        add_part(job, 0)
        before = job.manifest
        for misuse in (
            lambda: add_part(job, 0),
            lambda: job.part_path(7),
            lambda: job.add_part(-1),
            lambda: job.finish("out.mp4"),
            lambda: job.add_fallback(21, {}),
            lambda: job.add_fallback(0, {"a": object()}),
        ):
            with pytest.raises(InputError):
                misuse()
        with pytest.raises(FileError, match="No such file"):
            job.add_part(1)
        job.part_path(1).write_bytes(b"")
        with pytest.raises(FileError, match="is empty or not a regular file"):
            job.add_part(1)
        for index in ALL[1:]:
            add_part(job, index)
        for name in ("manifest.json", "part_000001.mkv", "x.tmp", "job.lock"):
            with pytest.raises(InputError, match="choose another"):
                job.finish(name)
        for name in ("../out.mp4", "nul", "a/b"):
            with pytest.raises(UnsafePathError):
                job.finish(name)
        with pytest.raises(FileError):
            job.finish("not-there.mp4")
        assert not job.finished and before.parts == job.manifest.parts[:1]
    with pytest.raises(InputError, match="closed"):
        job.add_fallback(0, {})


def test_a_job_that_goes_on_keeps_its_plan(tmp_path):
    Job.open(tmp_path, inputs(), lambda: PLAN).close()
    with Job.open(tmp_path, inputs(), lambda: JobPlan(20, 4, (range(0, 20),))) as job:
        assert job.plan == PLAN


def test_finished_only_while_the_output_is_whole(tmp_path):
    out = tmp_path / "videos"
    out.mkdir()

    def reopen():
        return Job.open(tmp_path / "jobs", inputs(), lambda: PLAN, output_folder=out)

    with reopen() as job:
        for index in ALL:
            add_part(job, index)
        finish(job)
    damaged = bytearray(content("output", 0))
    damaged[50] ^= 1
    for damage in (damaged, damaged[:-1], None):
        (out / "out.mp4").unlink()
        if damage is not None:
            (out / "out.mp4").write_bytes(damage)
        with reopen() as job:
            assert not job.finished and job.output_path is None and job.missing_parts() == ()
            finish(job)
    with reopen() as job:
        assert job.finished
        finish(job, "again.mp4", keep_parts=False)
        assert [n for n in names(job) if n.startswith(("part", "state"))] == []
    # Even the manifest before the last knows of it.
    (job.folder / "manifest.json").write_bytes(b"")
    with reopen() as job:
        assert job.finished
    (out / "again.mp4").unlink()
    with reopen() as job:
        assert not job.finished and job.missing_parts() == ALL


def test_the_manifest_before_the_last(tmp_path, caplog):
    with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
        for index in (0, 1, 2):
            add_part(job, index)
    manifest, backup = job.folder / "manifest.json", job.folder / "manifest.json.bak"
    good = manifest.read_bytes()
    for damage in (b"", good[:-100], None):
        manifest.unlink()
        if damage is not None:
            manifest.write_bytes(damage)
        with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
            assert job.missing_parts() == ALL[2:] and untrue(job) == []
            assert "the backup of its manifest" in caplog.text
            caplog.clear()
            add_part(job, 2)
            add_part(job, 3)
        with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
            assert job.missing_parts() == ALL[4:] and not caplog.text
        for path in (manifest, backup):
            path.write_bytes(good)
        backup.unlink()
        with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
            add_part(job, 3)
            write(backup, manifest.read_bytes())
        with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
            job.part_path(3).unlink()
            job.part_path(2).unlink()
        with Job.open(tmp_path, inputs(), lambda: PLAN) as job:
            add_part(job, 2)
    manifest.write_bytes(b"")
    backup.write_bytes(b"")
    with pytest.raises(DamagedManifestError, match="Delete its folder"):
        Job.open(tmp_path, inputs(), lambda: PLAN)
    assert job.part_path(0).exists()


def test_a_manifest_of_another_job_is_refused(tmp_path):
    Job.open(tmp_path, inputs(), lambda: PLAN).close()
    with Job.open(tmp_path, inputs(steps=20), lambda: PLAN) as other:
        pass
    source = tmp_path / job_id(inputs()) / "manifest.json"
    (other.folder / "manifest.json").write_bytes(source.read_bytes())
    with pytest.raises(DamagedManifestError, match="belongs to job"):
        Job.open(tmp_path, inputs(steps=20), lambda: PLAN)


@NO_LINKS
def test_links_are_not_followed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    secret = outside / "secret"
    with Job.open(root, inputs(), lambda: PLAN) as job:
        add_part(job, 0)
        add_state(job, 0)
    for name in ("part_000000.mkv", "state_000001.bin", "manifest.json.bak", "part_000003.mkv.tmp"):
        path = job.folder / name
        secret.write_bytes(path.read_bytes() if path.exists() else b"secret")
        data = secret.read_bytes()
        path.unlink(missing_ok=True)
        path.symlink_to(secret)
        with Job.open(root, inputs(), lambda: PLAN) as job:
            assert untrue(job) == []
            add_part(job, job.missing_parts()[0])
        assert secret.read_bytes() == data and not path.is_symlink()
    lock = job.folder / "job.lock"
    for link in (lock.symlink_to, lock.hardlink_to):
        lock.unlink()
        link(secret)
        with pytest.raises(FileError, match=r"Delete (it|the link)"):
            Job.open(root, inputs(), lambda: PLAN)
        assert secret.read_bytes() == data
    shutil.rmtree(job.folder)
    for target in (outside, root / ("0" * 32)):
        job.folder.symlink_to(target)
        with pytest.raises(UnsafePathError):
            Job.open(root, inputs(), lambda: PLAN)
        job.folder.unlink()
    assert list(outside.iterdir()) == [secret]


# --- the disk ------------------------------------------------------------------------------


@contextmanager
def small_disk(folder, *options):
    """A disk of 256 KiB in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root on Linux")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(disk):
    with (
        open(disk / "filler", "wb", buffering=0) as file,
        pytest.raises(OSError, match="space"),
    ):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_leaves_the_job_as_it_was(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        with Job.open(disk, inputs(), lambda: PLAN) as job:
            add_part(job, 0)
            write(job.part_path(1), content("part", 1))
            before = job.manifest
            fill(disk)
            for act in (
                lambda: job.add_part(1),
                lambda: job.add_fallback(0, {"a": 1}),
                lambda: Job.open(disk, inputs(steps=20), lambda: PLAN),
            ):
                with pytest.raises(DiskFullError, match=r"(bytes|KiB) needed, 0 bytes free"):
                    act()
            assert job.manifest == before
        assert [s.status for s in list_jobs(disk) if s.name] == ["unfinished"]
        (disk / "filler").unlink()
        with Job.open(disk, inputs(), lambda: PLAN) as job:
            assert job.missing_parts() == ALL[1:] and untrue(job) == []
            add_part(job, 1)


def test_a_disk_that_cannot_be_written(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        with Job.open(disk, inputs(), lambda: PLAN) as job:
            add_part(job, 0)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for other in (inputs(), inputs(steps=20)):
            with pytest.raises(FileError, match="No permission for"):
                Job.open(disk, other, lambda: PLAN)
        assert [(s.status, s.frames_done) for s in list_jobs(disk)] == [("unfinished", 3)]
        assert clean(disk, keep_days=0) == ()


def test_a_folder_without_permission(tmp_path):
    root = tmp_path / "root"
    root.mkdir(mode=0o500)
    if os.access(root, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(FileError, match="No permission for"):
        Job.open(root, inputs(), lambda: PLAN)


def test_a_file_where_a_folder_belongs(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / job_id(inputs())).write_text("x")
    for root in (tmp_path, tmp_path / "file", tmp_path / "file" / "in"):
        with pytest.raises(FileError):
            Job.open(root, inputs(), lambda: PLAN)


# --- any damage ----------------------------------------------------------------------------


def damage(path, pick) -> None:
    kind = pick.choice(
        ["cut", "grow", "flip", "zero", "empty", "delete", "folder", "swap"]
        + (["link", "pipe", "loop"] if os.name != "nt" else [])
    )
    data = bytearray(path.read_bytes()) if path.is_file() else bytearray(b"x")
    if path.is_dir() and not path.is_symlink():
        return
    path.unlink(missing_ok=True)
    at = pick.randrange(len(data) or 1)
    if kind == "cut":
        data = data[:at]
    elif kind == "grow":
        data += b"more"
    elif kind == "flip" and data:
        data[at] ^= 1 << pick.randrange(8)
    elif kind == "zero":
        data = bytes(len(data))
    elif kind == "empty":
        data = b""
    elif kind == "folder":
        return path.mkdir()
    elif kind == "link":
        return path.symlink_to("manifest.json.bak")
    elif kind == "loop":
        return path.symlink_to(path.name)
    elif kind == "pipe":
        return os.mkfifo(path)
    elif kind == "swap":
        data = pick.choice([f for f in path.parent.iterdir() if f.is_file()] or [path])
        data = data.read_bytes() if data.is_file() else b""
    if kind != "delete":
        path.write_bytes(data)


@pytest.mark.parametrize("finished", [False, True])
def test_any_damage_gives_a_named_error_or_missing_parts(tmp_path, finished):
    logging.disable(logging.CRITICAL)
    try:
        run_damages(tmp_path, finished)
    finally:
        logging.disable(logging.NOTSET)


def run_damages(tmp_path, finished):
    with Job.open(tmp_path / "good", inputs(), lambda: PLAN) as job:
        for index in ALL if finished else ALL[:4]:
            add_part(job, index)
            add_state(job, job.plan.part(index).start)
        if finished:
            finish(job)
        good = job.folder
    opened = refused = 0
    for seed in range(100):
        pick = random.Random(seed)
        root = tmp_path / str(seed)
        folder = shutil.copytree(good, root / good.name)
        for path in pick.sample(sorted(folder.iterdir()), pick.choice([1, 1, 2, 3])):
            damage(path, pick)
        summary = list_jobs(root)[0]
        try:
            with Job.open(root, inputs(), lambda: PLAN) as job:
                assert untrue(job) == [], seed
                assert not (job.finished and not finished)
                for index in job.missing_parts()[:1]:
                    add_part(job, index)
                opened += 1
        except FileError:
            refused += 1
        assert summary.status in ("damaged", "unfinished", "finished")
        if clean(root, keep_days=0):
            assert not folder.exists()
        shutil.rmtree(root)
    assert opened > 50 and refused > 5


def finished(root, out, name):
    with Job.open(root, inputs(), lambda: PLAN, output_folder=out) as job:
        for index in ALL:
            add_part(job, index)
        finish(job, name, keep_parts=False)


def test_a_finished_video_is_found_where_it_lies_and_delivered_elsewhere(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second" / "deep"
    first.mkdir()
    second.mkdir(parents=True)
    finished(tmp_path / "jobs", first, "one.mp4")
    with Job.open(tmp_path / "jobs", inputs(), lambda: PLAN, output_folder=second) as job:
        assert job.finished and job.output_path == first / "one.mp4"
        assert job.deliver("two.mp4") and not job.deliver("two.mp4")
        assert (second / "two.mp4").read_bytes() == content("output", 0)
        (second / "mine.mp4").write_bytes(b"precious")
        with pytest.raises(InputError, match="is not the same video"):
            job.deliver("mine.mp4")
        assert (second / "mine.mp4").read_bytes() == b"precious"
    # Moved by hand to where it is asked for.
    (first / "one.mp4").unlink()
    with Job.open(
        tmp_path / "jobs", inputs(), lambda: PLAN, output_folder=second, output_name="two.mp4"
    ) as job:
        assert job.finished and job.output_path == second / "two.mp4"
    (second / "two.mp4").unlink()
    with Job.open(tmp_path / "jobs", inputs(), lambda: PLAN, output_folder=second) as job:
        assert not job.finished


@NO_LINKS
def test_a_finished_video_is_found_where_the_folder_of_jobs_is_a_link(tmp_path):
    root, first, second = (tmp_path / "output" / name for name in ("jobs", "first", "second"))
    first.mkdir(parents=True)
    (tmp_path / "disk" / "large").mkdir(parents=True)
    root.symlink_to(tmp_path / "disk" / "large")
    finished(root, first, "one.mp4")
    with Job.open(root, inputs(), lambda: PLAN, output_folder=second) as job:
        assert job.finished and job.output_path == first / "one.mp4"


def test_a_joined_video_that_cannot_get_its_name_is_not_recorded(tmp_path):
    with Job.open(tmp_path / "jobs", inputs(), lambda: PLAN, output_folder=tmp_path) as job:
        for index in ALL:
            add_part(job, index)
        joined, folder = tmp_path / ".joining.mp4", tmp_path / "out.mp4"
        folder.mkdir()
        write(joined, content("output", 0))
        with pytest.raises(FileError):
            job.finish("out.mp4", joined=joined, keep_parts=False)
        assert not job.finished and untrue(job) == []
        folder.rmdir()
        job.finish("out.mp4", joined=joined, keep_parts=False)
        assert job.finished and untrue(job) == [] and not joined.exists()


def test_a_copy_that_is_cancelled_leaves_nothing(tmp_path):
    finished(tmp_path / "jobs", tmp_path, "one.mp4")

    def cancel():
        raise KeyboardInterrupt

    with Job.open(tmp_path / "jobs", inputs(), lambda: PLAN, output_folder=tmp_path) as job:
        with pytest.raises(KeyboardInterrupt):
            job.deliver("two.mp4", cancel)
        assert not list(tmp_path.glob("two*"))
