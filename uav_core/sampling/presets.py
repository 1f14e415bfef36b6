"""Named settings, for both kinds of weights: looks (how true to the input), speeds (how careful).

Those for the included weights are measured (docs/benchmarks.md). Of those for the authors' weights
*balanced* is the reference's, and the others are steps away from it that nobody has measured: the
weights are on no package index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..models.unet import UNetParams
from ..weights import included

INCLUDED, AUTHORS = "included", "authors'"
"""Kinds of weights."""
BALANCED, CUSTOM = "balanced", "custom"
"""What the workflows are set to, and the choice of no preset."""
QUALITY, FLAWS = "best quality, extremely detailed", "blur, worst quality"
"""The reference's texts: positive, after what the video shows; negative."""


@dataclass(frozen=True)
class Look:
    """Between the input and invention."""

    noise_level: int
    """0..350."""
    guidance: float
    propagation_strength: float = 0.5
    """0..1."""


@dataclass(frozen=True)
class Speed:
    """Between a draft and the best."""

    steps: int
    """DDIM steps."""
    propagation_steps: str
    """As ``parse_steps`` reads them, within ``steps``."""


_LAST = f"last {included.PROPAGATED}"

LOOKS: dict[str, dict[str, Look]] = {
    INCLUDED: {
        "faithful": Look(noise_level=0, guidance=1.0),
        BALANCED: Look(included.NOISE_LEVEL, included.GUIDANCE),
        # More noise gives these weights less detail, not more; guidance gives it.
        "creative": Look(included.NOISE_LEVEL, guidance=3.0),
    },
    AUTHORS: {
        "faithful": Look(noise_level=60, guidance=4.0),
        BALANCED: Look(noise_level=120, guidance=6.0),
        # 150 is what the authors advise for generated video.
        "creative": Look(noise_level=150, guidance=8.0),
    },
}
SPEEDS: dict[str, dict[str, Speed]] = {
    INCLUDED: {
        "draft": Speed(3, _LAST),
        BALANCED: Speed(included.STEPS, _LAST),
        "best": Speed(10, _LAST),
    },
    AUTHORS: {
        # The reference's steps of propagation, at the same shares of the run.
        "draft": Speed(15, "12,13,14"),
        BALANCED: Speed(30, "24,26,28"),
        "best": Speed(50, "40,43,47"),
    },
}

FIXED: dict[str, dict[str, Any]] = {
    INCLUDED: {
        "color_fix": included.COLOR_FIX,
        "frames_per_group": included.FRAMES_PER_GROUP,
    },
    AUTHORS: {"color_fix": "adain", "frames_per_group": 3},
}
"""What a kind of weights is decoded with, at every look and speed."""


def table() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """All of it as plain values: weights -> 'look' or 'speed' -> choice -> setting -> value."""
    return {
        weights: {
            "look": {name: asdict(look) for name, look in LOOKS[weights].items()},
            "speed": {name: asdict(speed) for name, speed in SPEEDS[weights].items()},
        }
        for weights in LOOKS
    }


def settings(weights: str, look: str = BALANCED, speed: str = BALANCED) -> dict[str, Any]:
    """The values of two choices by setting; nothing for a choice that is CUSTOM."""
    known = table()[weights]
    return {**known["look"].get(look, {}), **known["speed"].get(speed, {})}


def kind_of(params: UNetParams) -> str:
    """The kind of weights that a U-Net of these sizes has: the released sizes, or smaller ones."""
    return AUTHORS if params.channels == UNetParams().channels else INCLUDED


def unfit(weights: str, steps: int, guidance: float) -> str:
    """What is wrong with values that belong to another kind of weights; empty if nothing is.

    More than half as much again as the largest preset, or less than half of the smallest.
    """
    told = []
    for name, value, known in (
        ("steps", steps, [speed.steps for speed in SPEEDS[weights].values()]),
        ("guidance", guidance, [look.guidance for look in LOOKS[weights].values()]),
    ):
        least, most = min(known), max(known)
        if not least / 2 <= value <= most * 1.5:
            told.append(f"{name} {value:g} (presets: {least:g} to {most:g})")
    if not told:
        return ""
    return (
        f"Not what the {weights} weights are made for: {', '.join(told)}. The result may be poor. "
        f"In 'Settings', choose the weights '{weights}'."
    )


def differences(
    weights: str, look: str, speed: str, values: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Where ``values`` are not what the choices name: the setting and the named value."""
    for name, named in settings(weights, look, speed).items():
        if values[name] != named:
            yield name, named
