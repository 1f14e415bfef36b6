"""The encoded parts of a job, made one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from ..callbacks import Progress
from ..errors import InputError
from ..files import check_space, human_bytes
from ..jobs import Job, disk_needed
from ..sampling.stream import DamagedStateError, StreamState, load_state, save_state
from ..video import CODECS, EncodeParams, encode_part
from .ahead import used_behind
from .engine import Engine
from .fallback import Ladders, StepDown
from .forecast import Forecast
from .params import LongVideoParams
from .report import Report
from .scene import Scene
from .source.video import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A run once the video has been looked at."""

    source: Source
    encode: EncodeParams
    begin: str
    """How the result's file name begins; the start of the job's id and the ending follow."""
    report: Report


class Parts:
    """Makes parts of a job, fastest in the order of the frames. To be closed at the end."""

    def __init__(
        self,
        job: Job,
        task: Task,
        engine: Engine,
        params: LongVideoParams,
        *,
        progress: Progress,
        status: Callable[[str], None],
        check_cancelled: Callable[[], None],
    ) -> None:
        """The callbacks are those of ``LongVideo``; the task's report is added to."""
        self.job, self.engine, self.params = job, engine, params
        self.source, self.encode, self.report = task.source, task.encode, task.report
        self._progress, self._status, self._check_cancelled = progress, status, check_cancelled
        self.made = 0
        """Parts made so far."""
        self._ladders = Ladders.of(params, *self.source.size)
        self._ladders.resume(job.manifest.fallbacks)
        scenes = [len(scene) for scene in job.plan.scenes]
        self._forecast = Forecast(
            params, scenes, self.source.size, engine, status, self.source.resizing.bytes
        )
        self._scene: tuple[int, Scene] | None = None
        self._at = 0
        """First frame of the part under way."""
        self._passes_done, self._started = 0, time.monotonic()
        self.count_frames()

    def close(self) -> None:
        """Let go of the scene under way."""
        if self._scene is not None:
            self._scene[1].window.close()
            self._scene = None

    def make(self, index: int) -> None:
        """Make one part, and record it."""
        plan = self.job.plan
        self._check_space()
        frames = plan.part(index)
        self._at = frames.start
        self._status(f"part {index + 1} of {plan.parts}")
        path, size = self.job.part_path(index), self.report.size
        # Encoded on another thread: the networks need not wait for it.
        used_behind(
            lambda pixels: encode_part(path, pixels, self.encode, size),
            self._pixels(frames),
            room=self.params.frames_per_group,
        )
        self.job.add_part(index)
        self.made += 1
        self.report.frames_made += len(frames)
        self._say_what_is_left()

    def count_frames(self) -> None:
        """Count what other runs have finished."""
        share = self.job.manifest.frames_done / self.job.plan.frames
        self._show(max(self._passes_done, round(self._forecast.passes * share)))

    def _count_pass(self) -> None:
        self._show(min(self._passes_done + 1, self._forecast.passes))

    def _show(self, done: int) -> None:
        self._passes_done = done
        self._progress(done, self._forecast.passes)

    def _check_space(self) -> None:
        job, parts = self.job, self.job.manifest.parts
        done = sum(part.stop - part.start for part in parts)
        if parts:
            each = sum(part.bytes for part in parts) / done
        else:
            w, h = self.report.size
            # A guess, before the first part tells.
            each = CODECS[self.encode.codec].bits_per_pixel * w * h / 8
        state = self._forecast.state_bytes
        need = disk_needed(job.plan, each, frames_done=done, state_bytes=state)
        self._forecast.disk_bytes = need
        if not parts:
            self._status(f"about {human_bytes(need)} of disk are needed")
        check_space(job.folder, need)

    def _say_what_is_left(self) -> None:
        """The time left if the rest goes as what this run and others made since it began."""
        left = self.job.plan.frames - self.job.manifest.frames_done
        made = self.job.manifest.frames_done - self.report.frames_before
        if left > 0 and made > 0:
            seconds = (time.monotonic() - self._started) * left / made
            self._status(f"about {int(seconds // 3600)}:{int(seconds % 3600 // 60):02} h left")

    def _stepped_down(self, step: StepDown) -> None:
        """Record it: what is made from here on depends on it."""
        self.report.notes.append(str(step))
        self._status(str(step))
        self.job.add_fallback(self._at, self._ladders.to_json())

    def _pixels(self, frames: range) -> Iterator[Tensor]:
        job, number = self.job, self.job.plan.scene_at(frames.start)
        start, group = job.plan.scenes[number].start, self.params.frames_per_group
        scene = self._scene_at(number, frames.start - start)
        stop = frames.stop - start
        for _ in frames:
            self._check_cancelled()
            # A state is of use only if it is not past the part that comes next.
            if scene.next == stop // group * group and stop < scene.count:
                self._save(number, scene)
            yield self.source.resizing.after(scene.take(stop))
        if stop < scene.count:
            self._save(number, scene)

    def _save(self, number: int, scene: Scene) -> None:
        state = scene.state()
        if state is None:
            return
        save_state(self.job.new_state_path(number), state)
        self.job.set_state(number, self.job.plan.scenes[number].start + scene.next)

    def _scene_at(self, number: int, frame: int) -> Scene:
        """The scene, ready to give this frame: the one under way, or begun from a state."""
        if self._scene is not None and self._scene[0] == number and self._scene[1].next <= frame:
            scene = self._scene[1]
        else:
            self.close()
            scene = self._begin(number, frame)
            self._scene = number, scene
        scene.skip(frame)
        while scene.next < frame:
            scene.take(frame)
        return scene

    def _begin(self, number: int, frame: int) -> Scene:
        frames = self.job.plan.scenes[number]
        found = self.job.state_for(frames.start + frame)
        if found is not None:
            try:
                state = load_state(found[0])
                return self._new_scene(frames, found[1].frames_done - frames.start, state)
            except (DamagedStateError, InputError) as error:
                log.warning("Scene %d begins anew: %s", number, error)
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
                self._ladders,
                on_step=self._stepped_down,
                on_pass=self._count_pass,
                timed=self._forecast.timed,
                check_cancelled=self._check_cancelled,
                state=state,
            )
        except BaseException:
            window.close()
            raise
