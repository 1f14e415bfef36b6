"""A job on disk: a long video job that goes on where it was, however it ended."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..callbacks import ignore
from ..errors import InputError
from ..files import sync_folder
from .errors import JobFolderError, UnsafePathError
from .files import named_errors, settle
from .identity import JobInputs, job_id
from .lock import JobLock
from .manifest import (
    FINISHED,
    MOST_FALLBACKS,
    MOST_STATES,
    Fallback,
    Manifest,
    OutputRecord,
    PartRecord,
    StateRecord,
    new_manifest,
)
from .manifest_file import read_manifest, write_manifest
from .names import is_data, is_ours, next_state_name, part_name
from .paths import inside, plain_name
from .plain import check_plain
from .plan import JobPlan
from .verify import Verified, verify

log = logging.getLogger(__name__)


class Job:
    """One video being upscaled into one video, in a folder of its own; a context manager.

    Files are written by others: a part to ``part_path(index)``, a sampler state to
    ``new_state_path()``. ``add_part`` and ``set_state`` then wait until they are on the disk and
    record them. What is not recorded counts as not done, and is removed on the next opening.
    Made by ``Job.open``; its methods may be called from several threads.
    """

    def __init__(
        self, folder: Path, output_folder: Path, lock: JobLock, manifest: Manifest
    ) -> None:
        self.folder = folder
        self.output_folder = output_folder
        self.manifest = manifest
        self._lock = lock
        self._guard = threading.RLock()

    @classmethod
    def open(
        cls,
        root: str | os.PathLike[str],
        inputs: JobInputs,
        plan: JobPlan | Callable[[], JobPlan],
        *,
        output_folder: str | os.PathLike[str] | None = None,
        progress: Callable[[int, int], None] = ignore,
        check_cancelled: Callable[[], None] = ignore,
    ) -> Job:
        """Begin the job of ``inputs`` in ``root``, or continue it, and lock it.

        Args:
            root: the folder of all jobs; made if it is not there.
            inputs: what the job's id is made from.
            plan: of a new job, or a function that gives it and is called only for a new job. A job
                that is continued keeps the plan it began with: see ``job.plan``.
            output_folder: where the finished video lies; the job's own folder where left out.
            progress: called with (bytes, bytes in all) while finished files are verified.
            check_cancelled: called often; may raise.

        A part, state or output that is missing or damaged is logged and counts as not done.

        Raises:
            InputError: inputs that are not plain values, or a plan of another number of frames.
            JobBusyError: another run works on it.
            DamagedManifestError: neither the manifest nor the one before can be used.
            JobFolderError, DiskFullError, UnsafePathError: the folder cannot be used.
        """
        folder = _job_folder(root, job_id(inputs))
        output = Path(output_folder or folder)
        with ExitStack() as stack:
            lock = stack.enter_context(JobLock.acquire(folder))
            with named_errors(folder.parent, "writing"):
                sync_folder(folder.parent)
            found = read_manifest(folder)
            if found is None:
                manifest = new_manifest(inputs, plan if isinstance(plan, JobPlan) else plan())
                write_manifest(folder, manifest, None)
                job = cls(folder, output, lock, manifest)
            else:
                job = cls(folder, output, lock, found[0])
                _check_plan(job, plan)
                verified = verify(
                    job.manifest,
                    folder,
                    job.output_folder,
                    progress=progress,
                    check_cancelled=check_cancelled,
                )
                job._restart_from(verified, newest=found[1])
            job._remove_leftovers()
            stack.pop_all()
        return job

    @property
    def id(self) -> str:
        """The job's id, and the name of its folder."""
        return self.manifest.id

    @property
    def plan(self) -> JobPlan:
        """The frame ranges that this job follows."""
        return self.manifest.plan

    @property
    def finished(self) -> bool:
        """Whether the output was there and whole when the job was opened, or is done since."""
        return self.manifest.status == FINISHED

    @property
    def output_path(self) -> Path | None:
        """The finished video, or None."""
        output = self.manifest.output
        return None if output is None else self.output_folder / output.name

    # --- parts -----------------------------------------------------------------------------

    def missing_parts(self) -> tuple[int, ...]:
        """Indices of the parts still to be encoded, in order; of a finished job, none."""
        if self.finished:
            return ()
        there = {part.index for part in self.manifest.parts}
        return tuple(i for i in range(self.plan.parts) if i not in there)

    def part_path(self, index: int) -> Path:
        """Where part ``index`` lies or is to be written; InputError outside the plan."""
        self.plan.part(index)
        return self.folder / part_name(index)

    def add_part(self, index: int) -> PartRecord:
        """Record the file at ``part_path(index)`` as finished, once it is safe on the disk.

        Raises InputError for a part that is finished already, JobFolderError if the file is not
        there, DiskFullError if the manifest does not fit; the job is then as it was.
        """
        path, frames = self.part_path(index), self.plan.part(index)
        with self._guard:
            self._check_open()
            if index not in self.missing_parts():
                raise InputError(f"Part {index} of job {self.id} is finished already.")
            found = settle(path)
            part = PartRecord(index, frames.start, frames.stop, found.bytes, found.blake2b)
            parts = sorted((*self.manifest.parts, part), key=lambda part: part.index)
            self._write(parts=tuple(parts))
        return part

    # --- sampler states --------------------------------------------------------------------

    def new_state_path(self) -> Path:
        """Where the next sampler state is to be written."""
        return self.folder / next_state_name(state.file for state in self.manifest.states)

    def set_state(self, scene: int, frames_done: int) -> StateRecord:
        """Record the file at ``new_state_path()`` as the newest state of scene ``scene``.

        ``frames_done`` is the absolute frame up to which (exclusive) its frames were given out.
        The state before is kept, older ones are removed. Raises as ``add_part`` does.
        """
        if not 0 <= scene < len(self.plan.scenes):
            raise InputError(f"Scene {scene}: the plan has 0 to {len(self.plan.scenes) - 1}.")
        frames = self.plan.scenes[scene]
        if not frames.start <= frames_done <= frames.stop:
            raise InputError(
                f"A state at frame {frames_done} of scene {scene}, which has frames "
                f"{frames.start} to {frames.stop}."
            )
        with self._guard:
            self._check_open()
            path = self.new_state_path()
            found = settle(path)
            state = StateRecord(path.name, found.bytes, found.blake2b, scene, frames_done)
            old = self.manifest.states
            kept = (*old, state)[-MOST_STATES:]
            self._write(states=kept)
            self._remove(s.file for s in old if s not in kept)
        return state

    def state_for(self, frame: int) -> tuple[Path, StateRecord] | None:
        """The state from which ``frame`` takes the least work, or None: begin its scene anew.

        It is of the scene that holds ``frame`` and is not past it.
        """
        scene = self.plan.scene_at(frame)
        fit = [s for s in self.manifest.states if s.scene == scene and s.frames_done <= frame]
        if not fit:
            return None
        best = max(fit, key=lambda state: (state.frames_done, self.manifest.states.index(state)))
        return self.folder / best.file, best

    # --- the run as a whole ----------------------------------------------------------------

    def add_fallback(self, frame: int, setting: Mapping[str, Any]) -> None:
        """Record that from ``frame`` on ``setting`` (plain values) holds.

        Recording the last one again changes nothing. InputError after 10,000 of them.
        """
        check_plain(setting, "setting")
        if not 0 <= frame <= self.plan.frames:
            raise InputError(f"A fallback at frame {frame} of {self.plan.frames}.")
        with self._guard:
            self._check_open()
            old, new = self.manifest.fallbacks, Fallback(frame, dict(setting))
            if len(old) >= MOST_FALLBACKS:
                raise InputError(f"Job {self.id} has {len(old)} fallbacks: expected no more.")
            if old[-1:] != (new,):
                self._write(fallbacks=(*old, new))

    def finish(
        self,
        name: str,
        *,
        keep_parts: bool = True,
        progress: Callable[[int, int], None] = ignore,
        check_cancelled: Callable[[], None] = ignore,
    ) -> OutputRecord:
        """Record the video joined from all parts, ``name`` in the output folder, as the result.

        ``keep_parts=False`` then removes parts and states, so that the video is not on the disk
        twice; should the output be lost, all is to be done anew. ``progress(done, total)`` counts
        bytes. Raises InputError while parts are missing or for a name that a job's own file has,
        UnsafePathError for one that ``plain_name`` refuses, and otherwise as ``add_part`` does.
        """
        if is_ours(plain_name(name)):
            raise InputError(
                f"The output's name is {name}, as of a job's own file: choose another."
            )
        path = self.output_folder / name
        with self._guard:
            self._check_open()
            missing = self.missing_parts()
            if missing:
                raise InputError(
                    f"Job {self.id} is not done: {len(missing)} of {self.plan.parts} parts are "
                    f"missing, the first is {missing[0]}."
                )
            found = settle(path, progress=progress, check_cancelled=check_cancelled)
            record = OutputRecord(name, found.bytes, found.blake2b)
            self._write(output=record)
            if not keep_parts:
                # Only now: the backup must know of the output before the parts go.
                self._write(parts=(), states=())
                self._remove_leftovers()
        return record

    def close(self) -> None:
        """Unlock the job. It can be opened again; this object cannot be used any more."""
        with self._guard:
            self._lock.release()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------

    def _check_open(self) -> None:
        if not self._lock.held:
            raise InputError(f"Job {self.id} is closed. Open it again with Job.open.")

    def _write(self, **fields: Any) -> None:
        manifest = self.manifest.changed(**fields)
        write_manifest(self.folder, manifest, self.manifest)
        self.manifest = manifest

    def _restart_from(self, verified: Verified, newest: bool) -> None:
        """Forget what is not whole."""
        manifest = self.manifest
        if verified.same_as(manifest) and newest:
            return
        changed = manifest.changed(
            parts=verified.parts, states=verified.states, output=verified.output
        )
        # Not yet a good one to keep beside it: the backup itself may be all there is.
        write_manifest(self.folder, changed, None if not newest else manifest)
        self.manifest = changed

    def _remove_leftovers(self) -> None:
        """Delete what a crash left: half-written files, and whole ones that are not recorded."""
        kept = {part_name(part.index) for part in self.manifest.parts}
        kept |= {state.file for state in self.manifest.states}
        if self.manifest.output is not None:
            kept.add(self.manifest.output.name)
        with named_errors(self.folder, "reading"):
            names = sorted(os.listdir(self.folder))
        self._remove(name for name in names if name not in kept and is_data(name))

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            path = self.folder / name
            if os.path.isdir(path) and not os.path.islink(path):
                raise JobFolderError(f"{path} is a folder where a file belongs. Delete it.")
            log.info("Job %s: removing %s", self.id, name)
            with named_errors(path, "removing"):
                path.unlink(missing_ok=True)


def _job_folder(root: str | os.PathLike[str], name: str) -> Path:
    with named_errors(Path(root), "making"):
        os.makedirs(root, exist_ok=True)
    folder = inside(root, name)
    if folder.name != name or folder.parent != Path(os.path.realpath(root)):
        raise UnsafePathError(f"The job folder {name} in {root} is a link to {folder}. Delete it.")
    return folder


def _check_plan(job: Job, plan: JobPlan | Callable[[], JobPlan]) -> None:
    if not isinstance(plan, JobPlan) or plan == job.plan:
        return
    if plan.frames != job.plan.frames:
        raise InputError(
            f"Job {job.id} began with {job.plan.frames} frames and is now given {plan.frames}. "
            "Delete its folder to start anew."
        )
    log.warning("Job %s keeps the parts and scenes it began with, not those now given", job.id)
