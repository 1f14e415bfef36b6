"""An estimate of what a run will take, from what its first passes took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

from ..models.vae import UPSCALE
from .course import DECODING, FLOW, SAMPLING, Course
from .engine import Engine
from .estimate import Estimate, Measured, Work, estimate
from .params import LongVideoParams

# The first pass loads and warms up, so it is not counted.
WARM_UP = 1
# Passes after which the first estimate is given.
PASSES = 3


class Forecast:
    """Times the pieces of a run, and says what the whole will take.

    First after a few passes, about sampling alone; then after the first group was decoded, which
    with many steps is much later, about everything.
    """

    def __init__(
        self,
        params: LongVideoParams,
        scenes: Sequence[int],
        size: tuple[int, int],
        engine: Engine,
        tell: Callable[[str], None],
        resizing_bytes: int = 0,
    ) -> None:
        """``scenes``: frames of each; ``size`` (h, w); ``tell`` is given the text.

        ``resizing_bytes`` is the RAM that it takes to resize a frame.
        """
        self.params, self.size, self.engine, self._tell = params, size, engine, tell
        h, w = size
        self.resizing_bytes = resizing_bytes
        self.work = work_of(params, scenes, h, w)
        self.state_bytes = max(params.stream(frames, h, w).state_bytes for frames in set(scenes))
        """An upper guess of a sampler state."""
        self.disk_bytes = 0
        """As the one who checks the disk last found; in the text."""
        self.estimate: Estimate | None = None
        """Of the whole video, once there is one."""
        self.course = Course(
            {
                SAMPLING: params.steps * sum(self.work.segments),
                DECODING: self.work.frames,
                FLOW: self.work.pairs,
            }
        )
        """How far the run is."""
        self._passes = 0
        self._said: set[str] = set()

    @contextmanager
    def timed(self, stage: str, frames: int) -> Iterator[None]:
        """Around one piece of work on so many frames (of a flow: one pair)."""
        started = perf_counter()
        yield
        seconds = perf_counter() - started
        self._passes += stage == SAMPLING
        warm = stage != SAMPLING or self._passes > WARM_UP
        self.course.did(stage, frames, seconds if warm else None)
        if stage == DECODING:
            self._say(DECODING)
        elif self._passes == WARM_UP + PASSES:
            self._say(SAMPLING)

    def _say(self, what: str) -> None:
        # A resumed run may decode before it has sampled enough.
        if what in self._said or DECODING in self._said or not self.course.measured(SAMPLING):
            return
        self._said.add(what)
        self.estimate = self._estimated()
        text = self.estimate.to_text(self.engine.device_name())
        self._tell(text if what == DECODING else f"{text}\nDecoding is not timed yet.")

    def _estimated(self) -> Estimate:
        h, w = self.size
        n = max(self.work.segments)
        # As if a piece of one segment and one group of as many frames had been timed.
        piece = replace(
            self.work,
            scenes=[n],
            segment_length=n,
            overlap=min(self.params.overlap, n - 1),
            frames_per_group=n,
            propagates=False,
        )
        rate = {
            stage: self.course.rate(stage) if self.course.measured(stage) else 0.0
            for stage in (SAMPLING, DECODING, FLOW)
        }
        group = max(self.work.groups)
        pass_bytes, group_bytes = self.engine.memory(n, group, h, w)
        held = self.state_bytes + self.resizing_bytes + 4 * 3 * h * w * (group * UPSCALE**2 + 2 * n)
        return estimate(
            self.work,
            Measured(piece, rate[SAMPLING] * n, rate[DECODING] * n, rate[FLOW]),
            pass_bytes=pass_bytes,
            group_bytes=group_bytes,
            held_bytes=held,
            disk_bytes=self.disk_bytes,
        )


def work_of(params: LongVideoParams, scenes: Sequence[int], h: int, w: int) -> Work:
    """What a run on frames (h, w) consists of; ``scenes``: the frames of each."""
    return Work(
        scenes,
        h,
        w,
        steps=params.steps,
        halves=params.halves,
        guided_steps=params.guided.count(params.steps),
        segment_length=params.segment_length,
        overlap=params.overlap,
        frames_per_group=params.frames_per_group,
        propagates=bool(params.stream(max(scenes), h, w).propagation_steps),
    )
