"""What a run will take, from what a piece of it took.

Time grows with the frames of a pass, their area and the halves of guidance; memory with the
largest pass. An estimate: models are quicker on large passes than on small ones, attention grows
faster than the area, and other work on the machine is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..errors import InputError
from ..files import human_bytes
from ..models.vae import UPSCALE
from ..sampling.segments import DECODE_GROUP, OVERLAP, SEGMENT_LENGTH, plan_groups, plan_segments

# What the nodes that hold a clip whole keep for one pixel of the input and frame, as numbers of
# four bytes: the frames themselves and noised, with the noise (9); seven latents while sampling,
# of 4; two flows (4) and the frames they are of (3); and the result, 16 times 3.
NUMBERS_PER_PIXEL = 9 + 7 * 4 + 4 + 3 + 3 * UPSCALE**2


@dataclass(frozen=True)
class Work:
    """A run, as far as its cost depends on it. Raises InputError for values out of range."""

    scenes: Sequence[int]
    """Frames of each scene; one scene where nothing is known of cuts."""
    h: int
    w: int
    """Of the input, in pixels."""
    steps: int
    halves: int = 1
    """2 with classifier-free guidance, which runs the model on two texts, else 1."""
    guided_steps: int | None = None
    """Steps with guidance, which run both halves; all of them where left out."""
    segment_length: int = SEGMENT_LENGTH
    overlap: int = OVERLAP
    frames_per_group: int = DECODE_GROUP
    propagates: bool = False
    """Whether flow is estimated between all frames."""

    def __post_init__(self) -> None:
        if not self.scenes or min(self.h, self.w, self.steps) < 1 or self.halves not in (1, 2):
            raise InputError(
                f"Work of {len(self.scenes)} scenes of {self.w}x{self.h} in {self.steps} steps, "
                f"{self.halves} halves: expected at least 1 of each, and 1 or 2 halves."
            )
        _ = self.passes, self.groups  # which check frames, segments and groups

    @property
    def frames(self) -> int:
        """Frames of all scenes."""
        return sum(self.scenes)

    @cached_property
    def segments(self) -> tuple[int, ...]:
        """The frames of every segment of all scenes."""
        plans = (plan_segments(n, self.segment_length, self.overlap) for n in self.scenes)
        return tuple(segment.stop - segment.start for plan in plans for segment in plan)

    @property
    def passes(self) -> int:
        """Passes of the U-Net: each segment at each step."""
        return self.steps * len(self.segments)

    @cached_property
    def groups(self) -> tuple[int, ...]:
        """The frames of every group that is decoded together."""
        plans = (plan_groups(n, self.frames_per_group) for n in self.scenes)
        return tuple(len(group) for plan in plans for group in plan)

    @property
    def pairs(self) -> int:
        """Neighbouring frames whose flow is estimated, both ways."""
        return sum(n - 1 for n in self.scenes) if self.propagates else 0

    @property
    def pixels(self) -> int:
        """Pixels of one frame."""
        return self.h * self.w

    @property
    def sampled(self) -> int:
        """Positions that all passes see: frames, pixels and halves."""
        guided = self.steps if self.guided_steps is None else self.guided_steps
        runs = self.steps + (guided if self.halves == 2 else 0)
        return runs * sum(self.segments) * self.pixels


@dataclass(frozen=True)
class Measured:
    """Seconds that a piece took, without loading models."""

    piece: Work
    pass_seconds: float
    """The mean of one pass of the U-Net."""
    group_seconds: float
    """The mean of one group of the decoder."""
    pair_seconds: float = 0.0
    """Of the flow of one pair of frames, both ways."""


@dataclass(frozen=True)
class Estimate:
    """What a run takes. Bytes are peaks."""

    work: Work
    sampling_seconds: float
    decoding_seconds: float
    flow_seconds: float
    device_bytes: int
    """Of the largest pass or group, with the weights it needs; on the GPU if there is one."""
    ram_bytes: int
    """What is held in the computer's memory beside that."""
    disk_bytes: int

    @property
    def seconds(self) -> float:
        """Of the whole run, without loading models."""
        return self.sampling_seconds + self.decoding_seconds + self.flow_seconds

    def to_text(self, device: str = "GPU") -> str:
        """In a few lines; ``device`` is what runs the models, "GPU" or "CPU"."""
        work, memory = self.work, f"memory of the GPU {human_bytes(self.device_bytes)}, "
        held = self.ram_bytes
        if device != "GPU" or not self.device_bytes:
            memory, held = "", held + self.device_bytes
        scenes = f" in {len(work.scenes)} scenes" if len(work.scenes) > 1 else ""
        per_frame = self.seconds / work.frames
        flow = f", flow {duration(self.flow_seconds)}" if work.pairs else ""
        return (
            f"Estimate for all {work.frames} frames of {work.w}x{work.h}{scenes}: "
            f"{duration(self.seconds)}, {per_frame:.3g} s a frame.\n"
            f"Sampling {duration(self.sampling_seconds)} ({work.passes} passes), decoding "
            f"{duration(self.decoding_seconds)} ({len(work.groups)} groups){flow}.\n"
            f"About {memory}RAM {human_bytes(held)}, disk {human_bytes(self.disk_bytes)}."
        )


def estimate(
    work: Work,
    measured: Measured,
    *,
    pass_bytes: int = 0,
    group_bytes: int = 0,
    held_bytes: int = 0,
    disk_bytes: int = 0,
) -> Estimate:
    """What ``work`` takes, from a piece of the same kind.

    Args:
        work: the whole run.
        measured: seconds of a piece, which may have smaller frames, a smaller number of them, or
            both.
        pass_bytes: device memory of the largest pass of the U-Net, with its weights.
        group_bytes: the same of a group of the decoder.
        held_bytes: RAM that frames, latents and states take: ``clip_bytes`` where a clip is held
            whole, the state of the stream otherwise.
        disk_bytes: for the result and what is kept until it is finished.
    """
    piece = measured.piece
    sampling = measured.pass_seconds * piece.passes * work.sampled / piece.sampled
    area = work.pixels / piece.pixels
    decoding = measured.group_seconds * len(piece.groups) * work.frames / piece.frames * area
    return Estimate(
        work=work,
        sampling_seconds=sampling,
        decoding_seconds=decoding,
        flow_seconds=measured.pair_seconds * work.pairs * area,
        device_bytes=max(pass_bytes, group_bytes),
        ram_bytes=held_bytes,
        disk_bytes=disk_bytes,
    )


def clip_bytes(frames: int, h: int, w: int) -> int:
    """RAM that the nodes for clips hold for frames (h, w), from the input to the result."""
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
