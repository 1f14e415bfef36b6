"""Likeness to a reference: PSNR, SSIM, HaarPSI and GMSD, frame by frame, averaged.

All but PSNR are computed by the package piq, which need not be installed for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from ..callbacks import ignore
from ..errors import InputError, MissingPackageError
from .clips import check_alike, frame

# HaarPSI and SSIM use windows of up to this size.
SMALLEST = 16


def _piq() -> Any:
    """The package piq, imported late because it is optional and imports torchvision."""
    try:
        import piq
    except ImportError as error:
        raise MissingPackageError(
            f"SSIM, HaarPSI and GMSD need the package piq ({error}). Install it into the Python "
            "that runs this: python -m pip install --no-deps piq"
        ) from error
    return piq


def _psnr(x: Tensor, y: Tensor) -> Tensor:
    # At most 100 dB: a single frame equal to the reference, such as a black one, must not make
    # the mean infinite.
    return -10 * (x - y).square().mean().clamp(min=1e-10).log10()


FIDELITY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": _psnr,
    # As published: at full size, not shrunk first as piq does by default.
    "ssim": lambda x, y: _piq().ssim(x, y, data_range=1.0, downsample=False),
    "haarpsi": lambda x, y: _piq().haarpsi(x, y, data_range=1.0),
    "gmsd": lambda x, y: _piq().gmsd(x, y, data_range=1.0),
}
"""Every measure, a function of two frames (1,3,h,w) in [0, 1]."""


def fidelity(
    frames: Tensor,
    reference: Tensor,
    measures: Collection[str] = tuple(FIDELITY),
    check_cancelled: Callable[[], None] = ignore,
) -> dict[str, float]:
    """Mean measures over the frames of a clip against a reference, both (1,3,t,h,w) in [-1, 1].

    psnr is in dB (100 if equal), ssim and haarpsi up to 1 (equal), gmsd from 0 (equal). PSNR and
    SSIM use RGB, the others weight the channels themselves; colours outside the range are clipped.
    Raises InputError for clips that differ in length or size, or with a side under 16 px;
    MissingPackageError without piq, unless only psnr is asked for.
    """
    check_alike(frames, reference)
    if min(frames.shape[-2:]) < SMALLEST:
        h, w = frames.shape[-2:]
        raise InputError(f"The frames are {w}x{h}: expected at least {SMALLEST} px a side.")
    values: dict[str, list[Tensor]] = {name: [] for name in measures}
    for i in range(frames.shape[2]):
        check_cancelled()
        x, y = frame(frames, i), frame(reference, i).to(frames.device)
        for name in measures:
            values[name].append(FIDELITY[name](x, y))
    return {name: float(torch.stack(each).mean()) for name, each in values.items()}


def psnr(frames: Tensor, reference: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, 100 if equal; see `fidelity`."""
    return fidelity(frames, reference, ("psnr",))["psnr"]
