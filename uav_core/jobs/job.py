"""A long video job on disk, which goes on where it stopped, however it ended."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..callbacks import ignore
from ..errors import FileError, InputError, UnsafePathError
from ..files import (
    copy_whole,
    hash_file,
    is_plain,
    move_over,
    named_errors,
    remove_partials,
    sync_file,
    sync_folder,
)
from ..paths import inside, plain_name
from .lock import JOINING, NOTHING, Run, lock_job
from .manifest import (
    FINISHED,
    MOST_FALLBACKS,
    MOST_STATES,
    DamagedManifestError,
    Fallback,
    JobInputs,
    Manifest,
    OutputRecord,
    PartRecord,
    StateRecord,
    job_id,
    manifest_stamp,
    new_manifest,
    now,
    read_manifest,
    write_manifest,
)
from .names import PART, STATE, is_data, is_ours
from .plain import check_plain
from .plan import JobPlan

STATES_OF_A_SCENE = 2
"""Number of states of a scene that are kept; the older one is used if the newer is damaged."""

log = logging.getLogger(__name__)


class Job:
    """The job of upscaling one video, in a folder of its own; a context manager.

    Several runs, in one process or in many, may have the same job open. Each claims one scene after
    the other that no other run works on (``claim``); one of them claims the joining. The claim of a
    run that died is free again.

    The caller writes the files: a part to ``part_path(index)``, a sampler state to
    ``new_state_path(scene)``. ``add_part`` and ``set_state`` then wait until they are on the disk
    and record them. Files that are not recorded count as not done, and the next run that opens the
    job alone removes them. Made by ``Job.open``; its methods may be called from several threads.
    """

    def __init__(
        self,
        folder: Path,
        base: Path,
        output_folder: Path,
        run: Run,
        manifest: Manifest,
        check_cancelled: Callable[[], None],
    ) -> None:
        self.folder, self.output_folder = folder, output_folder
        self._base = base
        """The folder that holds the folder of jobs, or the link to it."""
        self.manifest = manifest
        """The manifest as this run last read it; ``refresh`` reads it again."""
        self.id, self.plan = manifest.id, manifest.plan
        """The name of the folder, and the frame ranges of this job."""
        self._run, self._check_cancelled = run, check_cancelled
        self._stamp = manifest_stamp(folder)
        self._guard = threading.RLock()

    @classmethod
    def open(
        cls,
        root: str | os.PathLike[str],
        inputs: JobInputs,
        plan: Callable[[], JobPlan],
        *,
        output_folder: str | os.PathLike[str] | None = None,
        output_name: str = "",
        check_cancelled: Callable[[], None] = ignore,
    ) -> Job:
        """Begin the job of ``inputs`` in ``root``, continue it, or join the runs at work on it.

        Args:
            root: the folder of all jobs; made if it does not exist.
            inputs: the values that the job's id is made from.
            plan: returns the plan, and is called only for a new job. A job that is continued keeps
                the plan it began with: see ``job.plan``.
            output_folder: the folder for the finished video; the job's own folder if None.
            output_name: the name of the finished video, if known: it is also searched under that
                name.
            check_cancelled: called often, now and while the job is open; may raise.

        A part, state or output that is missing or damaged is logged and counts as not done. Only
        a run that opens the job alone checks this.

        Raises:
            InputError: inputs that are not plain values.
            JobBusyError: too many runs work on it.
            DamagedManifestError: neither the manifest nor its backup can be used.
            FileError, DiskFullError, UnsafePathError: the folder cannot be used.
        """
        folder = _job_folder(root, job_id(inputs))
        with lock_job(folder, check_cancelled, make=True), ExitStack() as stack:
            with named_errors(folder.parent, "writing"):
                sync_folder(folder.parent)
            run = Run.enter(folder)
            stack.callback(run.release)
            run.work_on(NOTHING)
            alone, found = not run.others(), read_manifest(folder)
            if found is None:
                manifest, newest = new_manifest(inputs, plan()), True
                write_manifest(folder, manifest, None)
            else:
                manifest, newest = found
            # Not from ``folder``: where the folder of jobs is a link to another disk, the videos
            # are beside the link.
            base = Path(os.path.realpath(os.path.dirname(os.path.abspath(root))))
            output = Path(output_folder or folder)
            job = cls(folder, base, output, run, manifest, check_cancelled)
            if alone:
                job._restart(newest, output_name)
                job._remove_leftovers()
            stack.pop_all()
        return job

    @property
    def finished(self) -> bool:
        """Whether the output was whole when the job was opened, or was finished since."""
        return self.manifest.status == FINISHED

    @property
    def output_path(self) -> Path | None:
        """The finished video, or None."""
        output = self.manifest.output
        return None if output is None else self._place(output) / output.name

    # --- claims ----------------------------------------------------------------------------

    def claim(self) -> int | None:
        """Claim the first scene that has parts missing and that no other run works on.

        Returns JOINING if no part is missing and they must be joined, None if there is nothing to
        claim: all is done, or other runs work on what is left. The claim before is released.
        """
        with self._locked():
            taken, missing, plan = self._run.others(), self.missing_parts(), self.plan
            work: Iterable[int] = (plan.scene_at(plan.part(i).start) for i in missing)
            if not missing and not self.finished:
                work = (JOINING,)
            claimed = next((what for what in work if what not in taken), None)
            self._run.work_on(NOTHING if claimed is None else claimed)
            return claimed

    def alone(self) -> bool:
        """Whether no other run works on the job."""
        with self._locked():
            return not self._run.others()

    def refresh(self) -> Manifest:
        """The manifest, with everything that other runs have finished."""
        with self._locked():
            return self.manifest

    # --- parts -----------------------------------------------------------------------------

    def missing_parts(self, scene: int | None = None) -> tuple[int, ...]:
        """Indices of the parts still to be encoded, in order; none for a finished job.

        With ``scene``, only the parts of that scene.
        """
        if self.finished:
            return ()
        there = {part.index for part in self.manifest.parts}
        parts = range(self.plan.parts) if scene is None else self.plan.parts_of(scene)
        return tuple(i for i in parts if i not in there)

    def part_path(self, index: int) -> Path:
        """The path of part ``index``, whether it exists or not; InputError outside the plan."""
        self.plan.part(index)
        return self.folder / PART.format(index)

    def add_part(self, index: int) -> PartRecord:
        """Record the file at ``part_path(index)`` as finished, once it is safe on the disk.

        Raises InputError for a part that is finished already, FileError if the file does not
        exist, DiskFullError if the manifest does not fit; the job is then unchanged.
        """
        path, frames = self.part_path(index), self.plan.part(index)
        with self._locked():
            if index not in self.missing_parts():
                raise InputError(f"Part {index} of job {self.id} is finished already.")
            part = PartRecord(index, frames.start, frames.stop, *_settled(path))
            parts = sorted((*self.manifest.parts, part), key=lambda part: part.index)
            states, scene = self.manifest.states, self.plan.scene_at(frames.start)
            if self.missing_parts(scene) == (index,):
                states = tuple(s for s in states if s.scene != scene)
            self._write(parts=tuple(parts), states=states)
        return part

    # --- sampler states --------------------------------------------------------------------

    def new_state_path(self, scene: int) -> Path:
        """The path to which the next sampler state of a scene must be written.

        Runs that work on different scenes never choose the same file.
        """
        first, taken = scene * (STATES_OF_A_SCENE + 1) + 1, {s.file for s in self.manifest.states}
        names = (STATE.format(first + i) for i in range(STATES_OF_A_SCENE + 1))
        return self.folder / next(name for name in names if name not in taken)

    def set_state(self, scene: int, frames_done: int) -> StateRecord:
        """Record the file at ``new_state_path(scene)`` as the newest state of the scene.

        ``frames_done`` is the absolute frame up to which (exclusive) its frames were returned. The
        scene's previous state is kept; older ones and those of the same frame are removed. Raises
        as ``add_part`` does.
        """
        self.plan.check_state(scene, frames_done)
        with self._locked():
            path = self.new_state_path(scene)
            state = StateRecord(path.name, *_settled(path), scene, frames_done)
            old = [s for s in self.manifest.states if s.scene == scene]
            # A part that is tried again saves the same frame again, and must not crowd out the
            # state before the part, where the next try begins.
            again = [s for s in old if s.frames_done == frames_done]
            gone = again or old[: 1 - STATES_OF_A_SCENE]
            kept = (s for s in self.manifest.states if s not in gone)
            self._write(states=(*kept, state)[-MOST_STATES:])
        return state

    def state_for(self, frame: int) -> tuple[Path, StateRecord] | None:
        """The state from which ``frame`` takes the least work; None to begin its scene anew.

        It is the latest state of the scene of ``frame`` that is not past ``frame``.
        """
        scene = self.plan.scene_at(frame)
        fit = [s for s in self.manifest.states if s.scene == scene and s.frames_done <= frame]
        if not fit:
            return None
        # Of two states at the same frame, the newer one.
        best = max(reversed(fit), key=lambda state: state.frames_done)
        return self.folder / best.file, best

    # --- the run as a whole ----------------------------------------------------------------

    def add_fallback(self, frame: int, setting: Mapping[str, Any]) -> None:
        """Record that ``setting`` (plain values) holds from ``frame`` on.

        Recording the last fallback again changes nothing. InputError after 10,000 of them.
        """
        check_plain(setting, "setting")
        if not 0 <= frame <= self.plan.frames:
            raise InputError(f"Fallback at frame {frame}: expected 0 to {self.plan.frames}.")
        with self._locked():
            old, new = self.manifest.fallbacks, Fallback(frame, dict(setting))
            if len(old) >= MOST_FALLBACKS:
                raise InputError(
                    f"Job {self.id} already has {len(old)} fallbacks, which is the maximum."
                )
            if old[-1:] != (new,):
                self._write(fallbacks=(*old, new))

    def finish(
        self, name: str, *, joined: Path | None = None, keep_parts: bool = True
    ) -> OutputRecord:
        """Record the video joined from all parts, ``name`` in the output folder, as the result.

        It may be at ``joined`` in that folder, and is then renamed to ``name`` once it is recorded.
        So a run that ends before leaves nothing under that name.

        ``keep_parts=False`` then removes parts and states, so that the video is not on the disk
        twice; if the output is lost later, all work must be done again. Raises InputError while
        parts are missing or for the name of a job's own file, UnsafePathError for one that
        ``plain_name`` refuses, and otherwise as ``add_part`` does.
        """
        if is_ours(plain_name(name)):
            raise InputError(
                f"The output name {name} is reserved for the job's own files: choose another name."
            )
        path = self.output_folder / name
        with self._locked():
            missing = self.missing_parts()
            if missing:
                raise InputError(
                    f"Job {self.id} is not finished: {len(missing)} of {self.plan.parts} parts "
                    f"are missing, the first is {missing[0]}."
                )
            size, digest = _settled(joined or path, self._check_cancelled)
            record = OutputRecord(name, size, digest, self._relative)
            self._write(output=record)
            if joined is not None:
                self._rename(joined, path)
            if not keep_parts:
                # A second write: the backup must have the output before the parts are removed.
                self._write(parts=(), states=())
                self._remove_leftovers()
        return record

    def deliver(self, name: str, check_cancelled: Callable[[], None] = ignore) -> bool:
        """Put the finished video into the output folder as ``name``; returns whether it was copied.

        A file of that name that is not this video is not replaced. Raises InputError for that, and
        for a job that is not finished; UnsafePathError, DiskFullError, FileError.
        """
        done, target = self.output_path, self.output_folder / plain_name(name)
        if done is None or is_ours(name):
            raise InputError(
                f"Job {self.id} has no finished video, or the name {name} is reserved for its own "
                "files."
            )
        with self._locked():
            record = self.manifest.output
            assert record is not None
            if os.path.lexists(target):
                if os.path.realpath(done) == os.path.realpath(target) or (
                    is_plain(target)
                    and os.lstat(target).st_size == record.bytes
                    and hash_file(target, check_cancelled) == record.blake2b
                ):
                    return False
                raise InputError(
                    f"'{target}' already exists and is not the same video as '{done}': choose "
                    "another name, or move it away."
                )
            remove_partials(target)
            copy_whole(done, target, check_cancelled)
        return True

    def close(self) -> None:
        """Leave the job. It can be opened again, but this object cannot be used any more."""
        with self._guard:
            self._run.release()

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the manifest, which other runs write too ------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the job's lock, so that no other run uses the manifest, and read its newest version.

        Raises InputError for a job that was closed, FileError if the folder is gone.
        """
        with self._guard:
            if not self._run.held:
                raise InputError(f"Job {self.id} is closed. Open it again with Job.open.")
            with lock_job(self.folder, self._check_cancelled):
                if manifest_stamp(self.folder) != self._stamp:
                    self._read()
                yield

    def _read(self) -> None:
        problem = "it is missing"
        try:
            found = read_manifest(self.folder)
        except DamagedManifestError as error:
            found, problem = None, str(error)
        if found is not None and found[1]:
            self.manifest, self._stamp = found[0], manifest_stamp(self.folder)
        else:
            # The manifest was damaged meanwhile: the one in memory is the newest good one.
            log.warning("Job %s: its manifest is written again (%s)", self.id, problem)

    def _write(self, *, previous_is_good: bool = True, **fields: Any) -> None:
        """Change fields of the manifest, and keep the previous one as the backup if it is good.

        States that are no longer recorded are removed.
        """
        old, new = self.manifest, replace(self.manifest, updated=now(), **fields)
        write_manifest(self.folder, new, old if previous_is_good else None)
        self.manifest, self._stamp = new, manifest_stamp(self.folder)
        self._remove(s.file for s in old.states if s not in new.states)

    # --- inside ----------------------------------------------------------------------------

    @property
    def _relative(self) -> str | None:
        """The output folder in the form of ``OutputRecord.folder``."""
        folder = Path(os.path.realpath(self.output_folder))
        if not folder.is_relative_to(self._base):
            return None
        return "/".join(folder.relative_to(self._base).parts)

    def _place(self, output: OutputRecord) -> Path:
        """The folder of a recorded output."""
        return self.output_folder if output.folder is None else self._base / output.folder

    def _restart(self, newest: bool, output_name: str) -> None:
        """Read every recorded file, and drop the records of those that are not whole."""
        old, folder = self.manifest, self.folder
        outputs: dict[Path, OutputRecord] = {}
        if old.output is not None:
            # It may be in its recorded place, or in the output folder under either name.
            names = old.output.name, output_name or old.output.name
            moved = (replace(old.output, name=name, folder=self._relative) for name in names)
            for output in (old.output, *moved):
                outputs.setdefault(self._place(output) / output.name, output)
        whole = {
            "parts": tuple(p for p in old.parts if self._holds(folder / PART.format(p.index), p)),
            "states": tuple(s for s in old.states if self._holds(folder / s.file, s)),
            "output": next((o for path, o in outputs.items() if self._holds(path, o)), None),
        }
        if replace(old, **whole) != old or not newest:
            # A damaged newest one must not become the backup, which may be the only good one.
            self._write(previous_is_good=newest, **whole)

    def _holds(self, path: Path, record: PartRecord | StateRecord | OutputRecord) -> bool:
        """Whether a recorded file is still as it was finished; a fault is logged."""
        self._check_cancelled()
        try:
            with named_errors(path, "reading"):
                size = os.lstat(path).st_size
            if size != record.bytes:
                problem = f"has {size} bytes instead of {record.bytes}"
            elif hash_file(path, self._check_cancelled) != record.blake2b:
                problem = "has another checksum than when it was finished"
            else:
                return True
        except FileError as error:
            problem = f"cannot be read ({error})"
        log.warning("Job %s: %s %s; it will be made again", self.id, path.name, problem)
        return False

    def _rename(self, joined: Path, path: Path) -> None:
        """Give the recorded output its name; if that fails, it is no longer recorded."""
        try:
            with named_errors(path, "writing"):
                move_over(joined, path)
        except FileError:
            self._write(output=None)
            raise
        with named_errors(path, "writing"):
            sync_folder(path.parent)

    def _remove_leftovers(self) -> None:
        """Delete the files that a crash left: half-written ones, and those not recorded."""
        kept = {PART.format(part.index) for part in self.manifest.parts}
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
                raise FileError(f"{path} is a folder: expected a file. Delete the folder.")
            log.info("Job %s: removing %s", self.id, name)
            with named_errors(path, "removing"):
                path.unlink(missing_ok=True)


def _job_folder(root: str | os.PathLike[str], name: str) -> Path:
    with named_errors(Path(root), "creating"):
        os.makedirs(root, exist_ok=True)
    folder = inside(root, name)
    if folder.name != name or folder.parent != Path(os.path.realpath(root)):
        raise UnsafePathError(
            f"The job folder {name} in {root} is a link to {folder}: expected a folder. Delete "
            "the link."
        )
    return folder


def _settled(path: Path, check_cancelled: Callable[[], None] = ignore) -> tuple[int, str]:
    """Size and checksum of a file, once it and its name are on the disk.

    FileError if it is not a regular file with content.
    """
    with named_errors(path, "reading"):
        size = os.lstat(path).st_size
    if not is_plain(path) or size == 0:
        raise FileError(f"{path} is empty or not a regular file. Write the file first.")
    with named_errors(path, "writing"):
        sync_file(path)
        sync_folder(path.parent)
    return size, hash_file(path, check_cancelled)
