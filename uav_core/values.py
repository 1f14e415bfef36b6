"""Checks whether a network can use the values of a picture or a latent."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from .errors import InputError, NumericalError

log = logging.getLogger(__name__)

FAR = 0.5
"""Share of the range by which values may lie outside as overshoots of a resize; values farther
outside mean a picture of another range."""
_BEFORE = (
    "Check the node that made the frames. Often a VAE or another model overflows in fp16: load it "
    "in bf16 or fp32."
)
_ROUNDING = 0.02
"""Values outside by no more than this are clamped without a warning."""


def in_range(
    frames: Tensor,
    what: str,
    least: float = 0.0,
    dim: int = 0,
    first: int = 0,
    say: Callable[..., None] = log.warning,
) -> Tensor:
    """Frames with all values in [``least``, 1].

    Args:
        frames: of any shape; ``dim`` counts the frames.
        what: their name in messages, "frames" or "mask".
        least: 0, or -1 for pictures as the networks take them.
        dim: the dimension of the frames.
        first: the number of the first frame.
        say: called like a logger's method if more than rounding errors are clamped.

    Returns:
        ``frames`` itself if all values are in range. Overshoots of up to half the range, as from
        sharp resizing, are clamped.

    Raises:
        InputError: whole numbers instead of fractions, NaN or infinity, or values farther outside;
            the message names the first such frame.
    """
    if not frames.is_floating_point():
        kind = str(frames.dtype).removeprefix("torch.")
        raise InputError(
            f"The {what} are {kind}: expected fractions from {least:g} to 1 (float32). Divide by "
            "255 (8 bits) or 65535 (16 bits) first."
        )
    lowest, highest = 1.0, least
    for i, frame in enumerate(frames.unbind(dim) if frames.numel() else (), start=first):
        ends = torch.aminmax(frame)
        if not _finite(*ends):
            raise InputError(_not_finite(frame, f"Frame {i} of the {what}", _BEFORE))
        low, high = (float(end) for end in ends)
        reach = FAR * (1 - least)
        if low < least - reach or high > 1 + reach:
            raise InputError(
                f"Frame {i} of the {what} has values from {low:.4g} to {high:.4g}: expected "
                f"{least:g} to 1. {_cure(low, high, least)}"
            )
        lowest, highest = min(lowest, low), max(highest, high)
    if lowest >= least and highest <= 1:
        return frames
    if lowest < least - _ROUNDING or highest > 1 + _ROUNDING:
        say(
            "Values from %.3g to %.3g in the %s: values outside of %g to 1 are clipped.",
            lowest,
            highest,
            what,
            least,
        )
    return frames.clamp(least, 1)


def check_finite(values: Tensor, what: str, network: str, dim: int, first: int = 0) -> None:
    """Raise NumericalError if a network's result has NaN or infinity.

    Args:
        values: of any shape; ``dim`` counts the frames.
        what: their name in the message, "latent".
        network: the network that made them; the message advises to load it in another precision.
        first: the number of the first frame.
    """
    if values.sum().isfinite():
        return  # with NaN or infinity the sum is not finite
    for i, frame in enumerate(values.unbind(dim), start=first):
        if not _finite(*torch.aminmax(frame)):
            cure = f"{network} overflowed, or its weights are damaged: load it in bf16 or fp32."
            raise NumericalError(_not_finite(frame, f"Frame {i} of the {what}", cure))


def _finite(low: Tensor, high: Tensor) -> bool:
    """Whether minimum and maximum are finite; aminmax returns NaN if any value is NaN."""
    return bool(low.isfinite() and high.isfinite())


def _not_finite(frame: Tensor, where: str, cure: str) -> str:
    nan, bad = int(frame.isnan().sum()), int((~frame.isfinite()).sum())
    kinds = " and ".join(
        f"{count} times {name}" for count, name in ((nan, "NaN"), (bad - nan, "infinity")) if count
    )
    return f"{where} has {kinds} among its {frame.numel()} values: expected finite numbers. {cure}"


def _cure(low: float, high: float, least: float) -> str:
    if low >= -1.01 and high <= 1.01:
        return "The values seem to range from -1 to 1: add 1 and divide by 2 first."
    if low > -1 and 2 < high <= 255.5:
        return "The values seem to range up to 255: divide by 255 first."
    if low > -1 and 255.5 < high <= 65536:
        return "The values seem to range up to 65535: divide by 65535 first."
    return "Scale or tone-map the values to this range first."
