"""Estimates the time and memory of a run from a measured piece of it.

Time grows with the frames of a pass, their area and the halves of guidance; memory with the
largest pass. This is not exact: models are faster on large passes than on small ones, attention
grows faster than the area, and other load on the machine is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import torch

from ..files import human_bytes
from ..flow.estimate import pairs_at_once
from ..models.vae import UPSCALE
from ..sampling.pipeline import MIRRORED
from ..sampling.propagation import parse_steps
from ..sampling.segments import plan_groups, plan_segments
from .course import DECODING, FLOW, SAMPLING, Course
from .engine import Engine
from .params import LongVideoParams
from .scene import AHEAD_ON, read_ahead

# Passes that load models and warm up, and so are not timed.
WARM_UP = 1
# Timed passes before the first estimate.
PASSES = 3

# Numbers of four bytes that the nodes for clips hold for one input pixel of one frame: the frames,
# noise and noised frames (9); seven latents of 4 while sampling; two flows (4) and their frames
# (3); and the result, 16 times 3.
NUMBERS_PER_PIXEL = 9 + 7 * 4 + 4 + 3 + 3 * UPSCALE**2


@dataclass(frozen=True)
class Work:
    """The work of a run on frames (h, w). Raises InputError for a scene without frames."""

    params: LongVideoParams
    scenes: Sequence[int]
    """Frames of each scene; one scene if the cuts are not known."""
    h: int
    w: int

    def __post_init__(self) -> None:
        _ = self.segments  # Planning the segments checks the frames.

    @property
    def frames(self) -> int:
        """Frames of all scenes."""
        return sum(self.scenes)

    @cached_property
    def segments(self) -> tuple[int, ...]:
        """The frames of every segment of all scenes."""
        length, overlap = self.params.segment_length, self.params.overlap
        plans = (plan_segments(n, length, overlap) for n in self.scenes)
        return tuple(segment.stop - segment.start for plan in plans for segment in plan)

    @property
    def passes(self) -> int:
        """Number of U-Net passes: one for each segment at each step."""
        return self.params.steps * len(self.segments)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """The frames of every group that is decoded together."""
        plans = (plan_groups(n, self.params.frames_per_group) for n in self.scenes)
        return tuple(len(group) for plan in plans for group in plan)

    @property
    def propagates(self) -> bool:
        """Whether flow is estimated between all frames."""
        return bool(parse_steps(self.params.propagation_steps, self.params.steps))

    @property
    def pairs(self) -> int:
        """Number of neighbouring pairs whose flow is estimated, both ways."""
        return sum(n - 1 for n in self.scenes) if self.propagates else 0

    @property
    def amounts(self) -> dict[str, int]:
        """The work of every stage in pixels, to which its seconds are proportional."""
        p, pixels = self.params, self.h * self.w
        runs = p.steps + (p.halves - 1) * p.guided.count(p.steps)
        return {
            SAMPLING: runs * sum(self.segments) * pixels,
            DECODING: self.frames * pixels * (1 + len(MIRRORED) * p.self_ensemble),
            FLOW: self.pairs * pixels,
        }

    def scaled(self, piece: Work, seconds: Mapping[str, float]) -> dict[str, float]:
        """Seconds of every stage, scaled up from the ``seconds`` of a piece.

        The piece may have smaller frames, fewer frames, or both.
        """
        own, its = self.amounts, piece.amounts
        return {stage: took * own[stage] / max(its[stage], 1) for stage, took in seconds.items()}


@dataclass(frozen=True)
class Estimate:
    """Time and memory of a run, without loading models. Bytes are peaks."""

    work: Work
    stages: Mapping[str, float]
    """Seconds of every stage."""
    pass_bytes: int
    """Device memory of the largest U-Net pass, with its weights; 0 if not known."""
    group_bytes: int
    """Device memory to decode the largest group, with the weights; 0 if not known."""
    held_bytes: int
    """RAM for frames, latents and states: ``clip_bytes`` if a clip is held whole, otherwise the
    frames and the state of the stream."""
    disk_bytes: int
    """Disk space for the result and the files kept until it is finished."""

    @property
    def seconds(self) -> float:
        """Seconds of the whole run."""
        return sum(self.stages.values())

    def to_text(self, device: torch.device) -> str:
        """The estimate in a few lines; ``device`` is that of the models."""
        work, on_device = self.work, max(self.pass_bytes, self.group_bytes)
        memory, held = f"memory of the GPU {human_bytes(on_device)}, ", self.held_bytes
        if device.type == "cpu" or not on_device:
            memory, held = "", held + on_device
        scenes = f" in {len(work.scenes)} scenes" if len(work.scenes) > 1 else ""
        per_frame = self.seconds / work.frames
        flow = f", flow {duration(self.stages[FLOW])}" if work.pairs else ""
        return (
            f"Estimate for all {work.frames} frames of {work.w}x{work.h}{scenes}: "
            f"{duration(self.seconds)}, {per_frame:.3g} s a frame.\n"
            f"Sampling {duration(self.stages[SAMPLING])} ({work.passes} passes), decoding "
            f"{duration(self.stages[DECODING])} ({len(work.groups)} groups){flow}.\n"
            f"About {memory}RAM {human_bytes(held)}, disk {human_bytes(self.disk_bytes)}."
        )


class Forecast:
    """Times the pieces of a run, and estimates the whole run.

    The first estimate comes after a few passes, with guesses for stages not timed yet; the second
    after the first group was decoded, which is much later with many steps.
    """

    def __init__(
        self, work: Work, engine: Engine, tell: Callable[[str], None], resizing_bytes: int = 0
    ) -> None:
        """``tell`` gets the text; ``resizing_bytes`` is the RAM needed to resize a frame."""
        self.work, self.engine, self._tell = work, engine, tell
        self.resizing_bytes = resizing_bytes
        sizes = (work.params.stream(frames, work.h, work.w) for frames in set(work.scenes))
        self.state_bytes = max(stream.state_bytes for stream in sizes)
        """An upper estimate of a sampler state's size."""
        self.disk_bytes = 0
        """Disk space needed; set by the caller that checks the disk, shown in the text."""
        self.estimate: Estimate | None = None
        """The latest estimate of the whole video."""
        sampled = work.params.steps * sum(work.segments)
        self.course = Course({SAMPLING: sampled, DECODING: work.frames, FLOW: work.pairs})
        """The progress of the run."""
        self._passes = 0
        self._said: set[str] = set()

    @contextmanager
    def timed(self, stage: str, frames: int) -> Iterator[None]:
        """Time the block as one piece of work on ``frames`` frames (for flow: on one pair)."""
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
        # So short a run as to have no pass that is timed still gets an estimate, with a guess.
        known = self.course.measured(SAMPLING) or self.work.passes <= WARM_UP
        if what in self._said or DECODING in self._said or not known:
            return
        self._said.add(what)
        self.estimate = self._estimated()
        text = self.estimate.to_text(self.engine.device)
        whole, measured = self.course.whole, self.course.measured
        guessed = [stage for stage in whole if whole[stage] and not measured(stage)]
        self._tell(
            text + (f"\nNot measured yet, only guessed: {', '.join(guessed)}." if guessed else "")
        )

    def _estimated(self) -> Estimate:
        work, course = self.work, self.course
        n, group, h, w = max(work.segments), max(work.groups), work.h, work.w
        stages = {stage: course.rate(stage) * frames for stage, frames in course.whole.items()}
        device, room = self.engine.device, self.engine.room()
        groups = 3 if device.type in AHEAD_ON else 1  # two wait in page-locked memory
        pairs = pairs_at_once(device, h, w, room) if course.whole[FLOW] else 1
        frames_bytes = 4 * 3 * h * w * (groups * group * UPSCALE**2 + 2 * n + read_ahead(pairs))
        return Estimate(
            work,
            stages,
            pass_bytes=self.engine.memory("sample", n, h, w),
            group_bytes=self.engine.memory("decode", group, h, w),
            held_bytes=self.state_bytes + self.resizing_bytes + frames_bytes,
            disk_bytes=self.disk_bytes,
        )


def clip_bytes(frames: int, h: int, w: int) -> int:
    """RAM that the nodes for clips hold for ``frames`` frames (h, w), input and result included."""
    return 4 * NUMBERS_PER_PIXEL * frames * h * w


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3:05 min", "2:04 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02} h"
