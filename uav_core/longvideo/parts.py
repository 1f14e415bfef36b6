"""Makes the encoded parts of a job, one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from ..devices.memory import free_page_locked
from ..errors import InputError
from ..files import check_space, human_bytes, named_errors
from ..jobs import Job, disk_needed
from ..sampling.ladder import (
    Ladder,
    Setting,
    StepDown,
    decode_ladder,
    flow_ladder,
    from_tile,
    sample_ladder,
)
from ..sampling.stream import DamagedStateError, load_state, save_state
from ..video import CODECS, encode_part
from .ahead import used_behind
from .course import DECODING, FLOW, SAMPLING
from .engine import Stage
from .estimate import Forecast, Work, duration
from .params import LongVideoParams
from .scene import Scene

if TYPE_CHECKING:
    from .run import Task

PROGRESS = 1000
"""The total that progress counts to, as the work does not consist of equal pieces."""
# Seconds between two reports of the stage under way and the time left.
TELL_SECONDS = 1.0
DOING = {SAMPLING: "Sampling", DECODING: "Decoding", FLOW: "Following the motion"}

log = logging.getLogger(__name__)


class Parts:
    """Makes parts of a job, fastest in the order of the frames. Must be closed at the end."""

    def __init__(self, job: Job, task: Task) -> None:
        self.job, self.task, self.source, self.report = job, task, task.source, task.report
        self.run, self.engine, self.params = task.run, task.run.engine, task.run.params
        self._stage, self._told = "", 0.0
        self.made = 0
        """Number of parts made so far."""
        self._ladders = ladders(self.params, *self.source.size)
        for fallback in job.manifest.fallbacks:
            for name, setting in fallback.setting.items():
                self._ladders[name].resume(Setting.from_json(dict(setting)))
        work = Work(self.params, [len(scene) for scene in job.plan.scenes], *self.source.size)
        self._forecast = Forecast(work, self.engine, self.run.status, self.source.resizing.bytes)
        self._scene: tuple[int, Scene] | None = None
        self._at = 0
        """First frame of the part under way."""
        self._elsewhere = 0
        """Frames of other runs already counted in the progress."""
        self._foresee("sample", self.params.segment_length)
        self._foresee("decode", self.params.frames_per_group)
        self.count_frames()

    def _foresee(self, stage: Stage, frames: int) -> None:
        """Begin with a setting that can fit: by total memory, so that each run starts alike."""

        def least(setting: Setting) -> int:
            together = min(setting.frames or frames, frames)
            size = setting.size(*self.source.size)
            return self.engine.memory(stage, together, *size, least=True)

        step = self._ladders[stage].foresee(least, self.engine.room())
        if step is not None:
            self._stepped_down(step)

    def close(self) -> None:
        """Close the scene under way."""
        if self._scene is not None:
            self._scene[1].close()
            self._scene = None
            free_page_locked()

    def make(self, index: int) -> None:
        """Make one part and record it in the job."""
        plan = self.job.plan
        self._check_space()
        frames = plan.part(index)
        self._at = frames.start
        self.run.status(f"part {index + 1} of {plan.parts}{self._time_left()}")
        path, size = self.job.part_path(index), self.report.size
        # Encoded on another thread, so that the networks need not wait.
        used_behind(
            lambda pixels: encode_part(path, pixels, self.task.encode, size),
            self._pixels(frames),
            room=self.params.frames_per_group,
        )
        self.job.add_part(index)
        self.made += 1
        self.report.frames_made += len(frames)

    def count_frames(self) -> None:
        """Count the frames that other runs have finished."""
        others = self.job.manifest.frames_done - self.report.frames_made
        new, self._elsewhere = others - self._elsewhere, others
        self._forecast.course.did_elsewhere(max(0, new) / self.job.plan.frames)
        self._show()

    @contextmanager
    def _timed(self, stage: str, frames: int) -> Iterator[None]:
        """``Forecast.timed``, with reports of progress and stage."""
        if stage != self._stage:
            self._stage = stage
            self._tell()
        with self._forecast.timed(stage, frames):
            yield
        self._show()
        if time.monotonic() - self._told > TELL_SECONDS:
            self._tell()

    def _show(self) -> None:
        """Report progress: at least 1, and less than PROGRESS while there is work."""
        done = int(self._forecast.course.share * PROGRESS)
        self.run.progress(min(max(done, 1), PROGRESS - 1), PROGRESS)

    def _tell(self) -> None:
        self._told = time.monotonic()
        share = f"{self._forecast.course.share:.0%}"
        self.run.stage(f"{DOING[self._stage]}: {share}{self._time_left()}")

    def _time_left(self) -> str:
        left = self._forecast.course.seconds_left
        return "" if left is None else f", about {duration(left)} left"

    def _check_space(self) -> None:
        job, parts = self.job, self.job.manifest.parts
        done = job.manifest.frames_done
        if parts:
            each = sum(part.bytes for part in parts) / done
        else:
            w, h = self.report.size
            # A guess until the first part is encoded.
            each = CODECS[self.task.encode.codec].bits_per_pixel * w * h / 8
        state = self._forecast.state_bytes
        need = disk_needed(job.plan, each, frames_done=done, state_bytes=state)
        self._forecast.disk_bytes = need
        if not parts:
            self.run.status(f"about {human_bytes(need)} of disk space needed")
        check_space(job.folder, need)

    def _stepped_down(self, step: StepDown) -> None:
        """Record a step down, as the frames made from here on depend on it."""
        self.report.notes.append(str(step))
        self.run.status(str(step))
        settings = {name: ladder.setting.to_json() for name, ladder in self._ladders.items()}
        self.job.add_fallback(self._at, settings)

    def _pixels(self, frames: range) -> Iterator[Tensor]:
        job, number = self.job, self.job.plan.scene_at(frames.start)
        start, group = job.plan.scenes[number].start, self.params.frames_per_group
        scene = self._scene_at(number, frames.start - start)
        stop = frames.stop - start
        for _ in frames:
            self.source.check_cancelled()
            # Save at the last group boundary: a state past the next part's start is of no use.
            if scene.next == stop // group * group and stop < scene.count:
                self._save(number, scene)
            yield scene.take(stop)
        if stop < scene.count:
            self._save(number, scene)

    def _save(self, number: int, scene: Scene) -> None:
        state = scene.state()
        if state is None:
            return
        path = self.job.new_state_path(number)
        with named_errors(path, "writing", self._forecast.state_bytes):
            save_state(path, state)
        self.job.set_state(number, self.job.plan.scenes[number].start + scene.next)

    def _scene_at(self, number: int, frame: int) -> Scene:
        """The scene, ready to give ``frame``: the one under way, or one begun from a state."""
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
        """A scene, begun from the nearest state before ``frame``, or from its start."""
        frames, engine = self.job.plan.scenes[number], self.engine
        begun = partial(Scene, self.source, frames, engine, self.params, self._ladders)
        scene, found = None, self.job.state_for(frames.start + frame)
        if found is not None:
            try:
                state = load_state(found[0])
                scene = begun(state, on_step=self._stepped_down, timed=self._timed)
            except (DamagedStateError, InputError) as error:
                log.warning("Scene %d starts again from its first frame: %s", number, error)
        if scene is None:
            scene = begun(None, on_step=self._stepped_down, timed=self._timed)
        self._forecast.course.again(max(0, frame - scene.next) / self.job.plan.frames)
        return scene


def ladders(params: LongVideoParams, h: int, w: int) -> dict[str, Ladder]:
    """The ladders of a job's stages for frames (h, w), by the names that its records use.

    They begin with the settings asked for. Steps down hold for the rest of the job.
    """
    overlap, group, tile = params.tile_overlap, params.frames_per_group, params.tile
    sample = sample_ladder(params.segment_length, h, w, overlap)
    decode = decode_ladder(group, h, w, group, overlap)
    if tile and tile < max(h, w):
        sample = from_tile(sample, tile, overlap)
        decode = from_tile(decode, tile, overlap)
    return {"sample": sample, "decode": decode, "flow": flow_ladder(h, w)}
