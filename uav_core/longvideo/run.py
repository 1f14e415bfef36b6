"""The whole job: from a file to a file, resumed where it was."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..callbacks import Progress, ignore
from ..errors import InputError
from ..jobs import (
    Job,
    JobInputs,
    JobPlan,
    JobSummary,
    check_space,
    check_target,
    disk_needed,
    human_bytes,
    job_id,
    output_name,
    with_other_weights,
)
from ..sampling.stream import DamagedStateError, StreamState, load_state, save_state
from ..video import CODECS, EncodeParams, PartInfo, VideoError, encode_part, join, part_info
from ..video.scenes import find_cuts, parse_cuts, plan_scenes
from .engine import Engine
from .fallback import StepDown
from .forecast import Forecast
from .ladders import Ladders
from .params import LongVideoParams
from .report import Report
from .scene import Scene
from .source.span import Span
from .source.video import Source

log = logging.getLogger(__name__)

# How often the input is looked at while the run reads it.
CHECK_EVERY_PARTS = 4
# Names in ``Engine.weights`` of what comes from files: a new version of one is no other wish.
WEIGHT_FILES = ("unet", "vae", "flow", "texts")
# While other runs work on all that is left: how often it is looked at, and said again.
LOOK_SECONDS, WAIT_SECONDS = 0.25, 60.0


class LongVideo:
    """Upscales one video file into one, in parts that survive a crash.

    Run again with the same input, settings and weights it goes on where it was, and the finished
    file is bit for bit that of an undisturbed run on the same machine. Runs of the same job at the
    same time, in any process that reaches the folder of jobs, share its scenes.
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
        check_cancelled: Callable[[], None] = ignore,
    ) -> None:
        """Nothing is read before ``run``.

        Args:
            source: the video.
            folder: where the result lies; made if it is not there.
            engine: the networks, set to ``params``.
            name: how the result's file name begins, the source's with "_4x" or the size where
                left out; the start of the job's id and the ending follow.
            file_name: the whole file name instead. A file of that name that is not the job's own
                result is not replaced.
            span: the part of the video to upscale; all of it where left out.
            jobs: the folder of all jobs; ``folder``/jobs where left out.
            progress: called with (passes done, passes in all), of the whole video.
            status: called with what is being done, and with estimates.
            check_cancelled: called before every pass, group and frame; may raise, and what is
                finished is kept.
        """
        self.path, self.folder = Path(source), Path(folder)
        self.engine, self.params, self._choices = engine, params, encode
        self.name, self.file_name, self.span = name, file_name, span
        self.jobs = Path(jobs) if jobs is not None else self.folder / "jobs"
        self._progress, self._status, self._check_cancelled = progress, status, check_cancelled
        self._scene: tuple[int, Scene] | None = None
        self._report = Report()

    def run(self) -> Report:
        """Do what is left of the job.

        Raises:
            UnreadableVideoError, InputChangedError: of the source.
            InputError: settings that do not fit the source or each other, such as a size out of
                reach.
            DiskFullError, JobFolderError, UnwritableError: of the folders.
            OutOfMemoryError: memory ran out with the smallest settings too.
        """
        started = time.monotonic()
        output_name(self._result_name("0" * 8))
        self._status("reading the video")
        self.source = Source.open(self.path, self.params, self.span, self._check_cancelled)
        resizing = self.source.resizing
        self.encode = resizing.encode(self._choices.for_source(self.source.info))
        h, w = resizing.plan.size
        self._report.frames, self._report.size = len(self.source.frames), (w, h)
        self._report.resized = resizing.to_text()
        self._report.notes += self.source.times.notes
        for note in self.source.notes(self.encode):
            self._note(note)
        try:
            with self._open() as job:
                self._work(job)
                self._report.notes += self.source.times.damage()
                name = self._result_name(job.id)
                if job.deliver(name, self._check_cancelled):
                    self._report.notes.append(f"Copied from '{job.output_path}'.")
                self._report.output = str(job.output_folder / name)
        finally:
            self._close_scene()
        self._report.seconds = time.monotonic() - started
        return self._report

    def _note(self, note: str) -> None:
        self._report.notes.append(note)
        log.warning("%s: %s", self.path, note)
        self._status(note)

    # --- the job ---------------------------------------------------------------------------

    def _open(self) -> Job:
        inputs = JobInputs(
            fingerprint={
                "size": self.source.fingerprint.size,
                "blake2b": self.source.fingerprint.blake2b,
            },
            settings={
                "run": self.params.settings(),
                "encode": plain(self.encode),
                **self.source.settings(),
            },
            weights=self.engine.weights(self.jobs),
            name=self.path.name,
        )
        name = self._result_name(job_id(inputs))
        check_target(self.folder, name)
        for job, changed in with_other_weights(self.jobs, inputs, WEIGHT_FILES):
            self._note(other_weights(job, changed))
        return Job.open(
            self.jobs,
            inputs,
            self._plan,
            output_folder=self.folder,
            output_name=name,
            check_cancelled=self._check_cancelled,
        )

    def _plan(self) -> JobPlan:
        frames = len(self.source.frames)
        if self.params.cuts.strip():
            cuts = parse_cuts(self.params.cuts, self.source.seconds())
        else:
            self._status("looking for cuts")
            with self.source.reader() as reader:
                cuts = find_cuts(reader, self.params.scenes)
        return JobPlan(frames, self.params.part_length, plan_scenes(frames, cuts))

    def _work(self, job: Job) -> None:
        plan, missing = job.plan, job.missing_parts()
        at, starts = self.source.seconds(), [scene.start for scene in plan.scenes]
        self._report.cuts = [(i, at[i] - at[0]) for i in starts[1:]]
        self._status(self._report.cuts_text())
        left = sum(len(plan.part(i)) for i in missing)
        self._report.frames_before = plan.frames - left
        if job.finished:
            self._report.frames_before = plan.frames
            self._report.notes.append("The job was finished before; nothing was done.")
            return
        if job.alone():
            self._check_name(job)
            if left == plan.frames:
                self._rehearse()
        self._job, self.ladders = job, Ladders.of(self.params, *self.source.size)
        self.ladders.resume(job.manifest.fallbacks)
        scenes = [len(scene) for scene in plan.scenes]
        self._forecast = Forecast(self.params, scenes, self.source.size, self.engine, self._status)
        self._forecast.resizing_bytes = self.source.resizing.bytes
        self._passes, self._done = self._forecast.passes, 0
        self._count_frames(job)
        self._started, self._parts_made = time.monotonic(), 0
        while not job.finished:
            scene = job.claim()
            if scene is not None:
                self._count_frames(job)
                for index in job.missing_parts(scene):
                    self._make_part(job, index)
            elif job.claim_joining():
                self.source.check_unchanged()
                self._join(job)
            else:
                self._wait(job)

    def _result_name(self, job: str) -> str:
        """The file name that the result of a job of this id is to have."""
        if self.file_name:
            return self.file_name
        size = "4x"
        if self._report.resized:
            w, h = self._report.size
            size = f"{w}x{h}"
        begin = self.name or f"{self.path.stem}_{size}"
        return f"{begin}_{job[:8]}{self._choices.container}"

    def _check_name(self, job: Job) -> None:
        """Of a file that is named for the job, none can be another's."""
        target = self.folder / self._result_name(job.id)
        if self.file_name and os.path.lexists(target):
            raise InputError(f"'{target}' is there already: choose another name, or move it away.")

    def _wait(self, job: Job) -> None:
        """Until another run has finished something, or died."""
        self._status("waiting for the scenes that other runs work on")
        self._close_scene()
        done = job.manifest.frames_done
        for _ in range(round(WAIT_SECONDS / LOOK_SECONDS)):
            self._check_cancelled()
            time.sleep(LOOK_SECONDS)
            if job.refresh().frames_done != done or job.finished:
                break
        self._count_frames(job)

    def _check_space(self, job: Job) -> None:
        parts = job.manifest.parts
        if parts:
            each = sum(p.bytes for p in parts) / sum(p.stop - p.start for p in parts)
        else:
            w, h = self._report.size
            # A guess, before the first part tells.
            each = CODECS[self.encode.codec].bits_per_pixel * w * h / 8
        done = sum(part.stop - part.start for part in parts)
        state = self._forecast.state_bytes
        need = disk_needed(job.plan, each, frames_done=done, state_bytes=state)
        self._forecast.disk_bytes = need
        if not parts:
            self._status(f"about {human_bytes(need)} of disk are needed")
        check_space(job.folder, need)

    def _estimate(self, job: Job) -> None:
        """The time left if the rest goes as what this run and others made since it began."""
        left = job.plan.frames - job.manifest.frames_done
        made = job.manifest.frames_done - self._report.frames_before
        if left > 0 and made > 0:
            seconds = (time.monotonic() - self._started) * left / made
            self._status(f"about {int(seconds // 3600)}:{int(seconds % 3600 // 60):02} h left")

    def _stepped_down(self, step: StepDown) -> None:
        """Record it: what is made from here on depends on it."""
        self._report.notes.append(str(step))
        self._status(str(step))
        self._job.add_fallback(self._at, self.ladders.to_json())

    def _count_frames(self, job: Job) -> None:
        """Count what other runs have finished."""
        share = job.manifest.frames_done / job.plan.frames
        self._done = max(self._done, round(self._passes * share))
        self._progress(self._done, self._passes)

    def _count_pass(self) -> None:
        self._done = min(self._done + 1, self._passes)
        self._progress(self._done, self._passes)

    # --- one part --------------------------------------------------------------------------

    def _make_part(self, job: Job, index: int) -> None:
        self._check_space(job)
        if self._parts_made % CHECK_EVERY_PARTS == 0:
            self.source.check_unchanged()
        frames = job.plan.part(index)
        self._at = frames.start
        self._status(f"part {index + 1} of {job.plan.parts}")
        encode_part(
            job.part_path(index),
            self._pixels(job, frames),
            self.encode,
            self._report.size,
            check_cancelled=self._check_cancelled,
        )
        job.add_part(index)
        self._parts_made += 1
        self._report.frames_made += len(frames)
        self._estimate(job)

    def _pixels(self, job: Job, frames: range) -> Iterator[Tensor]:
        number = job.plan.scene_at(frames.start)
        start, group = job.plan.scenes[number].start, self.params.frames_per_group
        scene = self._scene_at(job, number, frames.start - start)
        stop = frames.stop - start
        for _ in frames:
            # A state is of use only if it is not past the part that comes next.
            if scene.next == stop // group * group and stop < scene.count:
                self._save(job, number, scene)
            yield self.source.resizing.after(scene.take(stop))
        if stop < scene.count:
            self._save(job, number, scene)

    def _save(self, job: Job, number: int, scene: Scene) -> None:
        state = scene.state()
        if state is None:
            return
        save_state(job.new_state_path(number), state)
        job.set_state(number, job.plan.scenes[number].start + scene.next)

    def _scene_at(self, job: Job, number: int, frame: int) -> Scene:
        """The scene, ready to give this frame: the one under way, or begun from a state."""
        if self._scene is not None and self._scene[0] == number and self._scene[1].next <= frame:
            scene = self._scene[1]
        else:
            self._close_scene()
            scene = self._begin(job, number, frame)
            self._scene = number, scene
        scene.skip(frame)
        while scene.next < frame:
            scene.take(frame)
        return scene

    def _begin(self, job: Job, number: int, frame: int) -> Scene:
        frames = job.plan.scenes[number]
        found = job.state_for(frames.start + frame)
        if found is not None:
            try:
                state = load_state(found[0])
                return self._new_scene(frames, found[1].frames_done - frames.start, state)
            except (DamagedStateError, InputError) as error:
                log.warning("Scene %d begins anew: %s", number, error)
                self._close_scene()
        return self._new_scene(frames, 0, None)

    def _new_scene(self, frames: range, first: int, state: StreamState | None) -> Scene:
        window = self.source.window(frames, first)
        try:
            return Scene(
                window,
                len(frames),
                self.source.size,
                self.engine,
                self.params,
                self.ladders,
                on_step=self._stepped_down,
                on_pass=self._count_pass,
                timed=self._forecast.timed,
                check_cancelled=self._check_cancelled,
                state=state,
            )
        except BaseException:
            window.close()
            raise

    def _close_scene(self) -> None:
        if self._scene is not None:
            self._scene[1].window.close()
            self._scene = None

    # --- the end ---------------------------------------------------------------------------

    def _join(self, job: Job) -> None:
        name = self._result_name(job.id)
        self._check_name(job)
        self._status("joining the parts")
        try:
            self._join_into(self.folder / name, part_infos(job, self.encode))
        except VideoError as error:
            raise type(error)(
                f"{error} All frames are made and kept in '{job.folder}': once the cause is gone, "
                "the same run again only joins them."
            ) from error
        job.finish(name, keep_parts=False)

    def _rehearse(self) -> None:
        """Join one black frame with what the source has beside its pictures.

        So what the end would refuse is refused before the first pass: a size that the encoder does
        not take, sound that the container cannot hold.
        """
        w, h = self._report.size
        black = torch.full((1, 1, 1), -1.0).expand(3, h, w)
        with tempfile.TemporaryDirectory(prefix="uav_") as folder:
            part = encode_part(Path(folder, "part.mkv"), [black], self.encode, (w, h))
            self._join_into(Path(folder, f"joined{self.encode.container}"), [part])

    def _join_into(self, target: Path, parts: Sequence[PartInfo]) -> None:
        join(
            parts,
            target,
            self.source.times,
            self.path,
            self.encode,
            first=self.source.frames.start,
            check_cancelled=self._check_cancelled,
        )


def other_weights(job: JobSummary, changed: Sequence[str]) -> str:
    """What to know of a job on the same video with the same settings but other weights."""
    if job.output is not None:
        kept = f"Its video {job.output} stays as it is."
    else:
        kept = (
            f"Its frames stay in {job.folder}, and it goes on there when it is run with the "
            "weights it began with."
        )
    return (
        f"The weights have changed ({', '.join(changed)}) since job {job.id[:8]} made "
        f"{job.frames_done} of {job.frames} frames of this video with these settings. Frames of "
        f"different weights do not go together: all are made with the weights chosen now. {kept}"
    )


def part_infos(job: Job, encode: EncodeParams) -> Sequence[PartInfo]:
    """The finished parts of a job, as ``join`` takes them."""
    return [
        part_info(job.part_path(part.index), encode, part.blake2b) for part in job.manifest.parts
    ]


def plain(encode: EncodeParams) -> dict[str, object]:
    """Encoder settings as plain values; without an HDR master's where it has none.

    So jobs begun before these were known go on.
    """
    return {
        name: value if isinstance(value, int | float | str | None) else str(value)
        for name, value in asdict(encode).items()
        if value or name not in ("mastering", "light_level")
    }
