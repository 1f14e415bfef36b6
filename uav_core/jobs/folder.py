"""A job on disk: a long video job that goes on where it was, however it ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..callbacks import ignore
from ..errors import InputError
from ..files import sync_folder
from .errors import JobFolderError, UnsafePathError
from .files import copy_whole, hash_file, is_plain, named_errors, settle
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
from .names import STATES_OF_A_SCENE, is_data, is_ours, next_state_name, part_name
from .paths import inside, plain_name
from .plain import check_plain
from .plan import JobPlan
from .runs import JOINING, NOTHING, Run
from .shared import SharedManifest
from .verify import Verified, verify

log = logging.getLogger(__name__)


class Job:
    """One video being upscaled into one video, in a folder of its own; a context manager.

    Several runs, in one process or in many, may have the same job open. Each takes on a scene that
    no other works on (``claim``), then another; one of them takes on the joining. What a run that
    died had taken on is free again.

    Files are written by others: a part to ``part_path(index)``, a sampler state to
    ``new_state_path(scene)``. ``add_part`` and ``set_state`` then wait until they are on the disk
    and record them. What is not recorded counts as not done, and is removed by the next run that
    opens the job alone. Made by ``Job.open``; its methods may be called from several threads.
    """

    def __init__(self, folder: Path, output_folder: Path, shared: SharedManifest) -> None:
        self.folder = folder
        self.output_folder = output_folder
        self._shared = shared

    @classmethod
    def open(
        cls,
        root: str | os.PathLike[str],
        inputs: JobInputs,
        plan: JobPlan | Callable[[], JobPlan],
        *,
        output_folder: str | os.PathLike[str] | None = None,
        output_name: str = "",
        progress: Callable[[int, int], None] = ignore,
        check_cancelled: Callable[[], None] = ignore,
    ) -> Job:
        """Begin the job of ``inputs`` in ``root``, continue it, or join the runs at work on it.

        Args:
            root: the folder of all jobs; made if it is not there.
            inputs: what the job's id is made from.
            plan: of a new job, or a function that gives it and is called only for a new job. A job
                that is continued keeps the plan it began with: see ``job.plan``.
            output_folder: where the finished video is wanted; the job's own folder where left out.
            output_name: how it is to be called, if that is known: a finished video is looked for
                under that name as well.
            progress: called with (bytes, bytes in all) while finished files are verified.
            check_cancelled: called often, now and while the job is open; may raise.

        A part, state or output that is missing or damaged is logged and counts as not done; this
        is looked at by the run that comes first.

        Raises:
            InputError: inputs that are not plain values, or a plan of another number of frames.
            JobBusyError: too many runs work on it.
            DamagedManifestError: neither the manifest nor the one before can be used.
            JobFolderError, DiskFullError, UnsafePathError: the folder cannot be used.
        """
        folder = _job_folder(root, job_id(inputs))
        output = Path(output_folder or folder)
        with JobLock.acquire(folder, check_cancelled=check_cancelled), ExitStack() as stack:
            with named_errors(folder.parent, "writing"):
                sync_folder(folder.parent)
            run = Run.enter(folder)
            stack.callback(run.leave)
            alone, found = not run.others(), read_manifest(folder)
            if found is None:
                manifest = new_manifest(inputs, plan if isinstance(plan, JobPlan) else plan())
                write_manifest(folder, manifest, None)
                job = cls(folder, output, SharedManifest(folder, run, manifest, check_cancelled))
            else:
                job = cls(folder, output, SharedManifest(folder, run, found[0], check_cancelled))
                _check_plan(job, plan)
                if alone:
                    verified = verify(
                        job.manifest,
                        folder,
                        job._outputs(output_name),
                        progress=progress,
                        check_cancelled=check_cancelled,
                    )
                    job._restart_from(verified, newest=found[1])
            if alone:
                job._remove_leftovers()
            stack.pop_all()
        return job

    @property
    def manifest(self) -> Manifest:
        """As this run last saw it; ``refresh`` looks again."""
        return self._shared.manifest

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
        return None if output is None else self._place(output) / output.name

    # --- what this run takes on ------------------------------------------------------------

    def claim(self) -> int | None:
        """Take on the first scene that has parts missing and that no other run works on.

        None if there is none: all is done, or others are at work on what is left. What was taken
        on before is given free.
        """
        with self._shared.locked():
            taken = self._shared.run.others()
            scene = next((scene for scene in self._open_scenes() if scene not in taken), None)
            self._shared.run.take(NOTHING if scene is None else scene)
            return scene

    def claim_joining(self) -> bool:
        """Take on joining the parts; whether that is to be done and no other run does it."""
        with self._shared.locked():
            free = JOINING not in self._shared.run.others()
            ready = free and not self.finished and not self.missing_parts()
            if ready:
                self._shared.run.take(JOINING)
            return ready

    def alone(self) -> bool:
        """Whether no other run works on the job."""
        with self._shared.locked():
            return not self._shared.run.others()

    def refresh(self) -> Manifest:
        """Look at what other runs have finished."""
        with self._shared.locked():
            return self.manifest

    # --- parts -----------------------------------------------------------------------------

    def missing_parts(self, scene: int | None = None) -> tuple[int, ...]:
        """Indices of the parts still to be encoded, in order; of a finished job, none.

        Of one scene, if it is given.
        """
        if self.finished:
            return ()
        there = {part.index for part in self.manifest.parts}
        parts = range(self.plan.parts) if scene is None else self.plan.parts_of(scene)
        return tuple(i for i in parts if i not in there)

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
        with self._shared.locked():
            if index not in self.missing_parts():
                raise InputError(f"Part {index} of job {self.id} is finished already.")
            found = settle(path)
            part = PartRecord(index, frames.start, frames.stop, found.bytes, found.blake2b)
            parts = sorted((*self.manifest.parts, part), key=lambda part: part.index)
            self._shared.write(parts=tuple(parts))
            self._drop_states()
        return part

    # --- sampler states --------------------------------------------------------------------

    def new_state_path(self, scene: int) -> Path:
        """Where the next sampler state of a scene is to be written."""
        return self.folder / next_state_name(scene, [s.file for s in self.manifest.states])

    def set_state(self, scene: int, frames_done: int) -> StateRecord:
        """Record the file at ``new_state_path(scene)`` as the newest state of the scene.

        ``frames_done`` is the absolute frame up to which (exclusive) its frames were given out.
        The scene's state before is kept, older ones are removed. Raises as ``add_part`` does.
        """
        if not 0 <= scene < len(self.plan.scenes):
            raise InputError(f"Scene {scene}: the plan has 0 to {len(self.plan.scenes) - 1}.")
        frames = self.plan.scenes[scene]
        if not frames.start <= frames_done <= frames.stop:
            raise InputError(
                f"A state at frame {frames_done} of scene {scene}, which has frames "
                f"{frames.start} to {frames.stop}."
            )
        with self._shared.locked():
            path = self.new_state_path(scene)
            found = settle(path)
            state = StateRecord(path.name, found.bytes, found.blake2b, scene, frames_done)
            old = [s for s in self.manifest.states if s.scene == scene]
            gone = old[: 1 - STATES_OF_A_SCENE]
            kept = tuple(s for s in self.manifest.states if s not in gone)
            self._shared.write(states=(*kept, state)[-MOST_STATES:])
            self._remove(s.file for s in gone)
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
        with self._shared.locked():
            old, new = self.manifest.fallbacks, Fallback(frame, dict(setting))
            if len(old) >= MOST_FALLBACKS:
                raise InputError(f"Job {self.id} has {len(old)} fallbacks: expected no more.")
            if old[-1:] != (new,):
                self._shared.write(fallbacks=(*old, new))

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
        with self._shared.locked():
            missing = self.missing_parts()
            if missing:
                raise InputError(
                    f"Job {self.id} is not done: {len(missing)} of {self.plan.parts} parts are "
                    f"missing, the first is {missing[0]}."
                )
            found = settle(path, progress=progress, check_cancelled=check_cancelled)
            record = OutputRecord(name, found.bytes, found.blake2b, self._relative)
            self._shared.write(output=record)
            if not keep_parts:
                # Only now: the backup must know of the output before the parts go.
                self._shared.write(parts=(), states=())
                self._remove_leftovers()
        return record

    def deliver(self, name: str, check_cancelled: Callable[[], None] = ignore) -> bool:
        """Have the finished video as ``name`` in the output folder; whether it was copied there.

        A file of that name that is not this video is not replaced. Raises InputError for that, and
        for a job that is not finished; UnsafePathError, DiskFullError, JobFolderError.
        """
        done, target = self.output_path, self.output_folder / plain_name(name)
        if done is None or is_ours(name):
            raise InputError(f"Job {self.id} has no video to be called {name}.")
        with self._shared.locked():
            record = self.manifest.output
            assert record is not None
            if os.path.lexists(target):
                if os.path.realpath(done) == os.path.realpath(target) or (
                    is_plain(target)
                    and os.lstat(target).st_size == record.bytes
                    and hash_file(target, check_cancelled=check_cancelled).blake2b == record.blake2b
                ):
                    return False
                raise InputError(
                    f"'{target}' is there already and is another video than '{done}': choose "
                    "another name, or move it away."
                )
            copy_whole(done, target, check_cancelled)
        return True

    def close(self) -> None:
        """Leave the job. It can be opened again; this object cannot be used any more."""
        self._shared.leave()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ----------------------------------------------------------------------------

    @property
    def _base(self) -> Path:
        """The folder that holds the folder of jobs."""
        return self.folder.parent.parent

    @property
    def _relative(self) -> str | None:
        """The output folder as an OutputRecord has it."""
        folder = Path(os.path.realpath(self.output_folder))
        if not folder.is_relative_to(self._base):
            return None
        return "/".join(folder.relative_to(self._base).parts)

    def _place(self, output: OutputRecord) -> Path:
        """The folder of a recorded output."""
        return self.output_folder if output.folder is None else self._base / output.folder

    def _outputs(self, name: str) -> list[tuple[Path, OutputRecord]]:
        """Where the recorded output may lie: its own place, or the one that is asked for."""
        output = self.manifest.output
        if output is None:
            return []
        places = {self._place(output) / output.name: output}
        for other in (output.name, name):
            if other:
                moved = replace(output, name=other, folder=self._relative)
                places.setdefault(self.output_folder / other, moved)
        return list(places.items())

    def _open_scenes(self) -> list[int]:
        """The scenes that have parts missing, in order."""
        missing = self.missing_parts()
        return list(dict.fromkeys(self.plan.scene_at(self.plan.part(i).start) for i in missing))

    def _drop_states(self) -> None:
        """Remove the states of scenes that are done."""
        open_scenes = self._open_scenes()
        gone = [s for s in self.manifest.states if s.scene not in open_scenes]
        if gone:
            self._shared.write(states=tuple(s for s in self.manifest.states if s not in gone))
            self._remove(s.file for s in gone)

    def _restart_from(self, verified: Verified, newest: bool) -> None:
        """Forget what is not whole."""
        manifest = self.manifest
        if verified.same_as(manifest) and newest:
            return
        self._shared.write(
            # Not yet a good one to keep beside it: the backup itself may be all there is.
            previous_is_good=newest,
            parts=verified.parts,
            states=verified.states,
            output=verified.output,
        )

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
