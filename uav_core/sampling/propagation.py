"""Flow-guided recurrent propagation of latents (paper, section 3.3). No learned weights.

Grids are sampled with align_corners=True and nearest neighbours, as in the reference: a latent
must not be averaged along the way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..flow.warp import warp


@dataclass(frozen=True)
class PropagationParams:
    """How strongly, and where, the neighbour's latent replaces a frame's own."""

    strength: float = 0.5
    """Weight of the warped neighbour where the flow is consistent, 0..1."""
    relative_threshold: float = 0.001
    """Tolerated squared forward-backward error, as a share of the squared flow lengths."""
    absolute_threshold: float = 0.05
    """Tolerated squared forward-backward error, in squared latent pixels."""

    def __post_init__(self) -> None:
        tolerances = self.relative_threshold, self.absolute_threshold
        if not 0 <= self.strength <= 1 or not all(0 <= t < float("inf") for t in tolerances):
            raise InputError(
                f"Propagation with strength {self.strength} and thresholds "
                f"{self.relative_threshold} and {self.absolute_threshold}: expected a strength "
                "from 0 to 1, and thresholds from 0 on."
            )


def consistent(flow: Tensor, other: Tensor, params: PropagationParams) -> Tensor:
    """(b 1 h w) bool: where ``flow`` and the flow back (``other``) cancel each other out."""
    back = warp(other, flow, "bilinear")

    def squared(f: Tensor) -> Tensor:
        return f.square().sum(dim=1, keepdim=True)

    tolerance = params.relative_threshold * (squared(flow) + squared(back))
    return squared(flow + back) < tolerance + params.absolute_threshold


class TrustedFlow(NamedTuple):
    """The motion from a frame to one neighbour."""

    flow: Tensor
    """(b, 2, h, w), in pixels."""
    trusted: Tensor
    """(b, 1, h, w) bool: where the neighbour may be taken from."""


@dataclass(frozen=True)
class PairMotion:
    """The motion between a frame and the next one, in both directions."""

    ahead: TrustedFlow
    back: TrustedFlow

    @classmethod
    def of(cls, forward: Tensor, backward: Tensor, params: PropagationParams) -> PairMotion:
        """From the flows to the next frame and back, each (b, 2, h, w)."""
        return cls(
            TrustedFlow(forward, consistent(forward, backward, params)),
            TrustedFlow(backward, consistent(backward, forward, params)),
        )


def sweep_backward(
    frames: Sequence[Tensor], motions: Sequence[PairMotion], strength: float
) -> list[Tensor]:
    """Mix into each frame (b, c, h, w) a share of the next one, from the last to the first.

    ``motions[i]`` is the motion between frames i and i + 1.
    """
    ways = (motion.ahead for motion in reversed(motions))
    return _sweep(reversed(frames), ways, strength, None)[::-1]


def sweep_forward(
    frames: Sequence[Tensor],
    motions: Sequence[PairMotion],
    strength: float,
    before: Tensor | None = None,
) -> list[Tensor]:
    """Mix into each frame (b, c, h, w) a share of the previous one, from the first to the last.

    ``before`` is the frame that an earlier sweep ended with; ``motions`` then begin between it and
    the first frame.
    """
    return _sweep(frames, (motion.back for motion in motions), strength, before)


def _sweep(
    frames: Iterable[Tensor], ways: Iterator[TrustedFlow], strength: float, carried: Tensor | None
) -> list[Tensor]:
    """Mix into each frame, in the sweep's order, a share of the previous propagated frame."""
    swept = []
    for frame in frames:
        if carried is not None:
            way = next(ways)
            taken = warp(carried, way.flow, "nearest")
            frame = torch.where(way.trusted, strength * taken + (1 - strength) * frame, frame)
        swept.append(frame)
        carried = frame
    return swept


def propagate(
    x0: Tensor,
    flow_forward: Tensor,
    flow_backward: Tensor,
    params: PropagationParams | None = None,
) -> Tensor:
    """Carry predicted clean latents along the optical flow, backward in time, then forward.

    Args:
        x0: (b, c, t, h, w), the predicted clean latent of the whole clip.
        flow_forward: (b, 2, t - 1, h, w), from frame i to i + 1, in pixels of (h, w).
        flow_backward: the same shape, from frame i + 1 to i.
        params: strength and consistency thresholds; the reference's if None.

    Returns:
        The propagated latent, shaped like ``x0``.

    Raises:
        InputError: the flows do not belong to ``x0``.
    """
    b, _, t, h, w = x0.shape
    for name, flow in (("forward", flow_forward), ("backward", flow_backward)):
        if tuple(flow.shape) != (b, 2, t - 1, h, w):
            raise InputError(
                f"The {name} flow is {tuple(flow.shape)}; a latent of {t} frames of {h}x{w} needs "
                f"{(b, 2, t - 1, h, w)}. Compute the flow on the same frames as the latent."
            )
    params = params or PropagationParams()
    pairs = zip(flow_forward.unbind(2), flow_backward.unbind(2), strict=True)
    motions = [PairMotion.of(*pair, params) for pair in pairs]
    swept = sweep_backward(x0.unbind(2), motions, params.strength)
    return torch.stack(sweep_forward(swept, motions, params.strength), dim=2)


def check_steps(chosen: Sequence[int], steps: int) -> None:
    """Raise InputError if a step in ``chosen`` is outside a run of ``steps`` steps."""
    outside = [i for i in chosen if not 0 <= i < steps]
    if outside:
        raise InputError(
            f"Propagation at steps {outside}: a run of {steps} steps has 0 to {steps - 1}."
        )


def parse_steps(text: str, steps: int | None = None) -> tuple[int, ...]:
    """The 0-based sampling steps at which to propagate.

    Accepts, separated by commas: a step ("24"), a range of steps ("20-24"), a range of percents
    of the run ("80%-95%"), or "last 3", which is every step of a run of 3 or fewer. Empty text
    means never. With ``steps`` left out only the form is checked, and () is returned.

    Raises InputError naming the part that is not understood, or is outside the run.
    """
    chosen: set[int] = set()
    for part in (p.strip().lower() for p in text.split(",")):
        if not part:
            continue
        chosen |= _parse_part(part, text, steps)
    return tuple(sorted(chosen))


_FORM = 'Expected step numbers such as "24,26,28", "20-24", "80%-95%" or "last 3".'


_PERCENTS = re.compile(r"(\d+(?:\.\d+)?)\s*%\s*(?:-\s*(\d+(?:\.\d+)?)\s*%)?")


def _starting(low: float, high: float, steps: int) -> set[int]:
    """The steps that start inside a range of percents."""
    return {i for i in range(steps) if low <= 100 * i / steps < high}


def falls_between_steps(text: str, steps: int) -> bool:
    """Whether no step of the run starts inside one of the ranges of percents in ``text``."""
    ranges = (_PERCENTS.fullmatch(part.strip()) for part in text.split(","))
    bounds = [(float(m[1]), float(m[2])) for m in ranges if m and m[2]]
    return any(low < high and not _starting(low, high, steps) for low, high in bounds)


def _parse_part(part: str, text: str, steps: int | None) -> set[int]:
    bad = InputError(f'Propagation steps "{text}": "{part}" is not understood. {_FORM}')
    if m := re.fullmatch(r"last\s+(\d+)", part):
        return set(range(max(0, (steps or 0) - int(m[1])), steps or 0))
    if m := _PERCENTS.fullmatch(part):
        low, high = float(m[1]), float(m[2] or m[1])
        if not 0 <= low <= high <= 100:
            raise bad
        if steps is None:
            return set()
        if low == high:
            return {min(int(low / 100 * steps), steps - 1)}
        # Of few steps, where none starts inside the range, it is the one that is under way.
        return _starting(low, high, steps) or {min(int(low / 100 * steps), steps - 1)}
    if m := re.fullmatch(r"(\d+)\s*(?:-\s*(\d+))?", part):
        low, high = int(m[1]), int(m[2] or m[1])
        if low > high:
            raise bad
        if steps is None:
            return set()
        if high >= steps:
            raise InputError(
                f'Propagation steps "{text}": step {high} is outside the run. With {steps} '
                f'sampling steps they are numbered 0 to {steps - 1}; "last 3" always fits.'
            )
        return set(range(low, high + 1))
    raise bad
