"""The settings with which a long video is upscaled."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from ..errors import InputError
from ..flow.estimate import ITERATIONS
from ..frames.color import ColorMode
from ..frames.detail import FULL, check_detail
from ..frames.output_size import OutputSize, When
from ..models.vae import UPSCALE
from ..sampling import schedule
from ..sampling.guidance import WHOLE_RUN, GuidanceRange
from ..sampling.propagation import PropagationParams, falls_between_steps, parse_steps
from ..sampling.segments import DECODE_GROUP, OVERLAP, SEGMENT_LENGTH, plan_segments
from ..sampling.stream import StreamParams
from ..sampling.tiles import OVERLAP as TILE_OVERLAP
from ..sampling.tiles import plan_tiles
from ..video import Deinterlace, check_deinterlace
from ..video.scenes import SceneParams, parse_cuts

PART_LENGTH = 48


@dataclass(frozen=True)
class LongVideoParams:
    """The settings of a run; the defaults are the reference's, for the authors' weights.

    Raises InputError for values outside their range.
    """

    steps: int = 30
    guidance: float = 6.0
    guided: GuidanceRange = WHOLE_RUN
    """The part of the denoising steps with guidance."""
    noise_level: int = schedule.DEFAULT_NOISE_LEVEL
    seed: int = 0
    segment_length: int = SEGMENT_LENGTH
    overlap: int = OVERLAP
    propagation_steps: str = "24,26,28"
    """As in ``parse_steps``; empty for none."""
    propagation: PropagationParams = field(default_factory=PropagationParams)
    flow_iterations: int = ITERATIONS
    frames_per_group: int = DECODE_GROUP
    lr_guidance: float = 1.0
    self_ensemble: bool = False
    """Whether frames are decoded four times, mirrored, as in ``decode_group``."""
    color: ColorMode = "none"
    tile: int = 0
    """Side of the first tiles, in low-resolution pixels; 0 for whole frames."""
    tile_overlap: int = TILE_OVERLAP
    scenes: SceneParams = field(default_factory=SceneParams)
    cuts: str = ""
    """Cuts given by hand: frames or times, as in ``parse_cuts``. If empty, cuts are detected."""
    part_length: int = PART_LENGTH
    """Frames of an encoded part; a crash can lose at most so many."""
    size: OutputSize = field(default_factory=lambda: OutputSize(factor=UPSCALE))
    """Size of the result, 1 to 4 times the input; sides are rounded to even numbers."""
    resize: When = "after"
    """If the size is not 4x: frames are shrunk "before" they are upscaled (fast), or resized
    "after" (best)."""
    deinterlace: Deinterlace = "auto"
    """Which pictures of the video are interlaced; they are deinterlaced before anything else."""
    detail: float = FULL
    """How much detail of the upscaled frames is kept, as in ``with_detail``."""

    def __post_init__(self) -> None:
        schedule.timesteps(self.steps)
        schedule.check_noise_level(self.noise_level)
        plan_segments(1, self.segment_length, self.overlap)
        parse_steps(self.propagation_steps, self.steps)
        parse_cuts(self.cuts)
        if not 1 <= self.guidance < float("inf"):
            raise InputError(f"Guidance is {self.guidance}: expected a finite number, 1 or more.")
        if not 0 <= self.lr_guidance <= 1:
            raise InputError(f"LR guidance is {self.lr_guidance}: expected 0 to 1.")
        if self.resize not in get_args(When):
            raise InputError(f"Resizing is '{self.resize}': expected one of {get_args(When)}.")
        check_deinterlace(self.deinterlace)
        check_detail(self.detail)
        plan_tiles((self.tile, self.tile), self.tile, self.tile_overlap)
        for name, value in (
            ("frames per group", self.frames_per_group),
            ("flow iterations", self.flow_iterations),
            ("part length", self.part_length),
        ):
            if value < 1:
                raise InputError(f"{name.capitalize()}: {value}; expected 1 or more.")

    @property
    def halves(self) -> int:
        """Number of texts that the model runs on: 2 with classifier-free guidance, else 1."""
        return 1 if self.guidance == 1 else 2

    def settings(self) -> dict[str, Any]:
        """The settings that decide the frames, as plain values, without size and deinterlacing.

        The effect of those two depends on the video: see ``Source.settings``.
        """
        left_out = {"size", "resize", "deinterlace", "detail"}
        # Options at their defaults are left out, so that jobs from before they existed match.
        if self.guided.is_whole:
            left_out.add("guided")
        if not self.self_ensemble:
            left_out.add("self_ensemble")
        plain = {k: v for k, v in asdict(self).items() if k not in left_out}
        if self.detail != FULL:
            # A new name since 0.5 means back-projection: older frames must not be mixed in.
            plain["detail_by_back_projection"] = self.detail
        if falls_between_steps(self.propagation_steps, self.steps):
            # There nothing was propagated before.
            plain["propagation_between_steps"] = True
        return plain

    def stream(self, frames: int, h: int, w: int) -> StreamParams:
        """The parameters of a stream for one scene of frames (h, w)."""
        return StreamParams(
            frames=frames,
            h=h,
            w=w,
            steps=self.steps,
            segment_length=self.segment_length,
            overlap=self.overlap,
            propagation_steps=parse_steps(self.propagation_steps, self.steps),
            propagation=self.propagation,
        )
