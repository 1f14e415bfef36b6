"""Small jobs for tests; the content of their files is determined by their numbers."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from uav_core.jobs import Job, JobInputs, JobPlan, Manifest
from uav_core.jobs.manifest import read_manifest

PLAN = JobPlan(20, 3, (range(0, 8), range(8, 20)))

LONG = JobPlan(6000, 3, (range(0, 2500), range(2500, 6000)))
SCENES = JobPlan(400, 3, tuple(range(i, i + 10) for i in range(0, 400, 10)))
SHORT = JobPlan(9, 3, (range(0, 9),))


@contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A temporary folder in memory if possible, else in ``folder``.

    A busy disk would only make the tests slow.
    """
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else folder) as name:
        yield Path(name)


def inputs(name="clip.mp4", **settings) -> JobInputs:
    return JobInputs(
        {"size": 1234, "blake2b": "0f" * 32},
        {"steps": 30, "guidance": 6.0, "text": "best quality", **settings},
        {"unet": "ab" * 32, "vae": "cd" * 32},
        name,
    )


def content(kind: str, number: int) -> bytes:
    """100 to 3,000 bytes that depend only on ``kind`` and ``number``."""
    seed = hashlib.blake2b(f"{kind} {number}".encode()).digest()
    return seed * (2 + seed[0] % 45)


def write(path: Path, data: bytes) -> None:
    """Write a file as an encoder does: under a temporary name first."""
    tmp = path.with_name(path.name + ".tmp")
    tmp.write_bytes(data)
    tmp.replace(path)


def add_part(job: Job, index: int) -> None:
    write(job.part_path(index), content("part", index))
    job.add_part(index)


def add_state(job: Job, frames_done: int, scene: int | None = None) -> None:
    scene = job.plan.scene_at(frames_done) if scene is None else scene
    write(job.new_state_path(scene), content("state", frames_done))
    job.set_state(scene, frames_done)


def finish(job: Job, name: str = "out.mp4", **options) -> None:
    write(job.output_folder / name, content("output", 0))
    job.finish(name, **options)


def unlike(manifest: Manifest, folder: Path) -> list[str]:
    """Recorded parts and states whose files do not have the expected content."""
    expected = {f"part_{p.index:06d}.mkv": content("part", p.index) for p in manifest.parts}
    expected |= {s.file: content("state", s.frames_done) for s in manifest.states}
    there = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return [name for name, data in expected.items() if there.get(name) != data]


def untrue_records(root: Path) -> list[str]:
    """Files that ``unlike`` finds for the manifests on disk, before the jobs are opened."""
    found = [(path, read_manifest(path)) for path in root.glob("*") if path.is_dir()]
    return [name for path, read in found if read for name in unlike(read[0], path)]


def untrue(job: Job) -> list[str]:
    """Records of an opened job that its files contradict, and files that it should not have."""
    manifest, wrong = job.manifest, unlike(job.manifest, job.folder)
    if job.finished:
        path = job.output_path
        if path is None or not path.is_file() or path.read_bytes() != content("output", 0):
            wrong.append("output")
    known = {f"part_{part.index:06d}.mkv" for part in manifest.parts}
    known |= {state.file for state in manifest.states} | {"out.mp4"}
    known |= {"job.lock", "manifest.json", "manifest.json.bak"}
    known |= {f"run_{number:03d}.lock" for number in range(4)}
    return wrong + sorted(path.name for path in job.folder.iterdir() if path.name not in known)
