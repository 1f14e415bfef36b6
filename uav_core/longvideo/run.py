"""The whole job: upscales a file into a file, and resumes where an earlier run stopped."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..callbacks import Progress, ignore
from ..errors import InputError
from ..files import check_target, remove_partials
from ..jobs import JOINING, Job, JobInputs, JobPlan, JobSummary, job_id, with_other_weights
from ..paths import output_name
from ..video import EncodeParams, PartInfo, VideoError, encode_part, join, part_info
from ..video.scenes import find_cuts, parse_cuts, plan_scenes
from .engine import Engine
from .params import LongVideoParams
from .parts import PROGRESS, Parts
from .report import Report
from .source import Source, Span

log = logging.getLogger(__name__)

# Number of parts after which the input is checked for changes.
CHECK_EVERY_PARTS = 4
# Names in ``Engine.weights`` of what comes from files, and of precisions, which *default*
# may choose differently in another version. If an earlier job differs only in these,
# the user probably meant to resume it and gets a note.
WEIGHT_FILES = ("unet", "unet dtype", "vae", "vae dtype", "flow", "texts")
# While other runs work on all that is left: seconds between checks, and between reports.
LOOK_SECONDS, WAIT_SECONDS = 0.25, 60.0


@dataclass(frozen=True)
class Task:
    """Everything that is known once the video was opened."""

    run: LongVideo
    source: Source
    encode: EncodeParams
    inputs: JobInputs
    name: str
    """The file name of the result."""
    report: Report
    """The run adds to it."""


class LongVideo:
    """Upscales one video file into another, in parts that survive a crash.

    Run again with the same input, settings and weights, it goes on where it stopped, and the
    finished file is bit for bit that of an undisturbed run on the same machine. Several runs of
    one job at the same time, in any process that reaches the folder of jobs, share its scenes.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        engine: Engine,
        params: LongVideoParams,
        encode: EncodeParams,
        *,
        name: str = "",
        file_name: str = "",
        span: Span | None = None,
        jobs: str | os.PathLike[str] | None = None,
        progress: Progress = ignore,
        status: Callable[[str], None] = ignore,
        stage: Callable[[str], None] = ignore,
        check_cancelled: Callable[[], None] = ignore,
    ) -> None:
        """Nothing is read before ``run``.

        Args:
            source: the video.
            folder: the folder of the result; made if it does not exist.
            engine: the networks, set to ``params``.
            name: the start of the result's file name; by default the source's name with "_4x" or
                the size. The start of the job's id and the extension follow.
            file_name: the whole file name instead. A file of that name that is not the job's own
                result is not replaced.
            span: the part of the video to upscale; all of it if None.
            jobs: the folder of all jobs; ``folder``/jobs if None.
            progress: called with (done, total) for the whole video, weighted by the stages' cost.
            status: called with texts on what happens, and with estimates.
            stage: called about every second with a text on the stage under way, the share done
                and the time left; with "" when that is over.
            check_cancelled: called before every pass, group and frame; may raise, and finished
                parts are kept.
        """
        self.path, self.folder = Path(source), Path(folder)
        self.engine, self.params, self.encode = engine, params, encode
        self.name, self.file_name, self.span = name, file_name, span
        self.jobs = Path(jobs) if jobs is not None else self.folder / "jobs"
        self.progress, self.status, self.stage = progress, status, stage
        self.check_cancelled = check_cancelled

    def run(self) -> Report:
        """Do what is left of the job.

        Raises:
            UnreadableVideoError, InputChangedError: the source cannot be read, or has changed.
            InputError: settings that do not fit the source or each other, such as a size out of
                reach.
            DiskFullError, FileError: a folder cannot be written.
            OutOfMemoryError: memory ran out with the smallest settings too.
        """
        started = time.monotonic()
        self.progress(1, PROGRESS)
        output_name(self._result_name(self.name or self.path.stem, "0" * 8))
        self.status("reading the video")
        task = self._task()
        with self._open(task) as job:
            self._work(task, job)
            task.report.notes += task.source.footage.times.damage()
            if job.deliver(task.name, self.check_cancelled):
                task.report.notes.append(f"Copied from '{job.output_path}'.")
            task.report.output = str(job.output_folder / task.name)
        self.progress(PROGRESS, PROGRESS)
        task.report.seconds = time.monotonic() - started
        return task.report

    def _task(self) -> Task:
        source = Source.open(self.path, self.params, self.span, self.check_cancelled)
        encode = source.resizing.encode(self.encode.for_source(source.footage.info))
        h, w = source.resizing.plan.size
        resized = source.resizing.to_text()
        size = f"{w}x{h}" if resized else "4x"
        report = Report(frames=len(source.frames), size=(w, h), resized=resized)
        report.notes += source.footage.times.notes
        for note in source.notes(encode):
            self._note(report, note)
        inputs = JobInputs(
            fingerprint={"size": source.fingerprint.size, "blake2b": source.fingerprint.blake2b},
            settings={"run": self.params.settings(), "encode": plain(encode), **source.settings()},
            weights=self.engine.weights(self.jobs),
            name=self.path.name,
        )
        name = self._result_name(self.name or f"{self.path.stem}_{size}", job_id(inputs))
        return Task(self, source, encode, inputs, name, report)

    def _note(self, report: Report, note: str) -> None:
        report.notes.append(note)
        log.warning("%s: %s", self.path, note)
        self.status(note)

    def _result_name(self, begin: str, job: str) -> str:
        """The file name for the result of a job with the id ``job``."""
        return self.file_name or f"{begin}_{job[:8]}{self.encode.container}"

    def _open(self, task: Task) -> Job:
        check_target(self.folder, task.name)
        for job, changed in with_other_weights(self.jobs, task.inputs, WEIGHT_FILES):
            self._note(task.report, other_weights(job, changed))
        return Job.open(
            self.jobs,
            task.inputs,
            lambda: self._plan(task.source),
            output_folder=self.folder,
            output_name=task.name,
            check_cancelled=self.check_cancelled,
        )

    def _plan(self, source: Source) -> JobPlan:
        frames = len(source.frames)
        if self.params.cuts.strip():
            cuts = parse_cuts(self.params.cuts, source.seconds())
        else:
            self.status("looking for cuts")
            with source.reader() as reader:
                cuts = find_cuts(reader, self.params.scenes)
        return JobPlan(frames, self.params.part_length, plan_scenes(frames, cuts))

    def _work(self, task: Task, job: Job) -> None:
        plan, missing, report = job.plan, job.missing_parts(), task.report
        at, starts = task.source.seconds(), [scene.start for scene in plan.scenes]
        report.cuts = [(i, at[i] - at[0]) for i in starts[1:]]
        self.status(report.cuts_text())
        left = sum(len(plan.part(i)) for i in missing)
        report.frames_before = plan.frames - left
        if job.finished:
            report.notes.append("The job was finished before; nothing was done.")
            return
        if job.alone():
            self._check_name(task.name)
            if left == plan.frames:
                self._rehearse(task)
        with closing(Parts(job, task)) as parts:
            self._share(task, job, parts)

    def _share(self, task: Task, job: Job, parts: Parts) -> None:
        """Make the parts that no other run makes, until all are made and joined."""
        while not job.finished:
            work = job.claim()
            if work is None:
                parts.close()
                self._wait(job)
                parts.count_frames()
            elif work == JOINING:
                task.source.check_unchanged()
                self._join(task, job)
            else:
                parts.count_frames()
                for index in job.missing_parts(work):
                    if parts.made % CHECK_EVERY_PARTS == 0:
                        task.source.check_unchanged()
                    parts.make(index)

    def _wait(self, job: Job) -> None:
        """Wait until another run has finished a part, or WAIT_SECONDS have passed."""
        self.stage("")
        self.status("waiting for the scenes that other runs work on")
        done = job.manifest.frames_done
        for _ in range(round(WAIT_SECONDS / LOOK_SECONDS)):
            self.check_cancelled()
            time.sleep(LOOK_SECONDS)
            if job.refresh().frames_done != done or job.finished:
                break

    def _check_name(self, name: str) -> None:
        """Refuse a given file name that exists; names with the job's id are the job's own."""
        target = self.folder / name
        if self.file_name and os.path.lexists(target):
            raise InputError(f"'{target}' already exists: choose another name, or move it away.")

    def _join(self, task: Task, job: Job) -> None:
        self._check_name(task.name)
        self.stage("")
        self.status("joining the parts")
        records = job.manifest.parts
        # It gets its name when the job has recorded it. A file that a stopped run left under that
        # name could not be told from one of the user, and the job could not go on.
        joined = self.folder / f".joining_{job.id}{Path(task.name).suffix}"
        joined.unlink(missing_ok=True)  # of a run that was killed while it joined
        remove_partials(joined)
        try:
            parts = [part_info(job.part_path(p.index), task.encode, p.blake2b) for p in records]
            self._join_into(joined, parts, task)
            self._check_name(task.name)  # joining a film takes minutes
            job.finish(task.name, joined=joined, keep_parts=False)
        except VideoError as error:
            raise type(error)(
                f"{error} All frames are finished and kept in '{job.folder}'. Fix the cause and "
                "run the same again: it then only joins the frames."
            ) from error
        finally:
            with suppress(OSError):
                joined.unlink(missing_ok=True)

    def _rehearse(self, task: Task) -> None:
        """Join one black frame with the source's sound, captions and other tracks.

        So the run fails before the first pass, not at its end, if the encoder does not take the
        size or the container cannot hold the sound.
        """
        w, h = task.report.size
        black = torch.full((1, 1, 1), -1.0).expand(3, h, w)
        with tempfile.TemporaryDirectory(prefix="uav_") as folder:
            part = encode_part(Path(folder, "part.mkv"), [black], task.encode, (w, h))
            self._join_into(Path(folder, f"joined{task.encode.container}"), [part], task)

    def _join_into(self, target: Path, parts: Sequence[PartInfo], task: Task) -> None:
        join(
            parts,
            target,
            task.source.footage.times,
            self.path,
            task.encode,
            first=task.source.frames.start,
            check_cancelled=self.check_cancelled,
        )


def other_weights(job: JobSummary, changed: Sequence[str]) -> str:
    """A note on a job for the same video and settings but other weights."""
    if job.output is not None:
        kept = f"Its video {job.output} is kept."
    else:
        kept = (
            f"Its frames are kept in {job.folder}. To continue that job, run it with the weights "
            "it was started with."
        )
    return (
        f"The weights have changed ({', '.join(changed)}) since job {job.id[:8]} made "
        f"{job.frames_done} of {job.frames} frames of this video with these settings. Frames from "
        "different weights cannot be combined, so all frames are made again with the current "
        f"weights. {kept}"
    )


def plain(encode: EncodeParams) -> dict[str, object]:
    """Encoder settings as plain values; HDR mastering data only if there is some.

    So jobs begun before those settings existed can go on.
    """
    return {
        name: value if isinstance(value, int | float | str | None) else str(value)
        for name, value in asdict(encode).items()
        if value or name not in ("mastering", "light_level")
    }
