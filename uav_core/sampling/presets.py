"""Named settings, for both kinds of weights: looks (how true to the input), speeds (how careful).

The settings for the included weights are measured (docs/benchmarks.md). For the authors' weights,
*balanced* is the reference's setting; the others are steps away from it and are not measured, as
the weights are on no package index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError
from ..models.unet import UNetParams
from ..weights import included

INCLUDED, AUTHORS = "included", "authors'"
"""Kinds of weights."""
FEWEST_LEADING = 4
"""Steps of leading spacing, of which the last changes nothing, that give a usable result."""
BALANCED, CUSTOM = "balanced", "custom"
"""The workflows' default, and the choice of no preset."""
QUALITY, FLAWS = "best quality, extremely detailed", "blur, worst quality"
"""The reference's texts: the positive one, which follows a description, and the negative one."""


@dataclass(frozen=True)
class Look:
    """How far the result may depart from the input."""

    noise_level: int
    """0..350."""
    guidance: float
    propagation_strength: float = 0.5
    """0..1."""


@dataclass(frozen=True)
class Speed:
    """How much time is spent: from a draft to the best quality."""

    steps: int
    """DDIM steps."""
    propagation_steps: str
    """As ``parse_steps`` reads them, within ``steps``."""
    self_ensemble: bool = False
    """Whether frames are decoded four times, mirrored."""


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
        "draft": Speed(included.STEPS, ""),
        BALANCED: Speed(included.STEPS, _LAST),
        # More steps change next to nothing.
        "best": Speed(included.STEPS, _LAST, self_ensemble=True),
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
"""Decoding settings of each kind of weights, the same at every look and speed."""


def table() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """LOOKS and SPEEDS as plain values: weights -> 'look' or 'speed' -> choice -> setting."""
    return {
        weights: {
            "look": {name: asdict(look) for name, look in LOOKS[weights].items()},
            "speed": {name: asdict(speed) for name, speed in SPEEDS[weights].items()},
        }
        for weights in LOOKS
    }


def settings(weights: str, look: str = BALANCED, speed: str = BALANCED) -> dict[str, Any]:
    """The values of a look and a speed, by setting; CUSTOM has none.

    Raises InputError for unknown weights.
    """
    if weights not in LOOKS:
        kinds = " or ".join(f"'{kind}'" for kind in LOOKS)
        raise InputError(
            f"The weights arrived as {weights!r}: expected {kinds}. Choose one of them, or connect "
            "a text that is one of them."
        )
    known = table()[weights]
    return {**known["look"].get(look, {}), **known["speed"].get(speed, {})}


def kind_of(params: UNetParams) -> str:
    """The kind of weights of a U-Net: AUTHORS for the released widths, INCLUDED for any other."""
    return AUTHORS if params.channels == UNetParams().channels else INCLUDED


def unfit(params: UNetParams, steps: int, guidance: float) -> str:
    """A message for values that suit another kind of weights; empty if they fit these.

    Values fit from half the smallest preset to several times the largest. A U-Net without trailing
    time steps needs at least FEWEST_LEADING.
    """
    weights, told = kind_of(params), []
    most_steps = 12 if weights == INCLUDED else 3  # the included weights have presets of one step
    for name, value, known, times in (
        ("steps", steps, [speed.steps for speed in SPEEDS[weights].values()], most_steps),
        ("guidance", guidance, [look.guidance for look in LOOKS[weights].values()], 1.5),
    ):
        least, most = min(known), max(known)
        if not least / 2 <= value <= most * times:
            presets = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            told.append(f"{name} {value:g} (presets: {presets})")
    if not params.trailing and steps < FEWEST_LEADING and weights == INCLUDED:
        told.append(f"steps {steps} (without trailing time steps: {FEWEST_LEADING} or more)")
    if not told:
        return ""
    return (
        f"These values do not suit the {weights} weights: {', '.join(told)}. The result may be "
        f"poor. In 'Settings', choose the weights '{weights}'."
    )


def differences(
    weights: str, look: str, speed: str, values: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Each setting whose value differs from the named choices, with the named value."""
    for name, named in settings(weights, look, speed).items():
        if values[name] != named:
            yield name, named
