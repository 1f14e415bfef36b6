"""How much of the upscaled frames is kept, from the plain enlargement to all of it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..models.vae import UPSCALE
from .color import enlarge, with_enlarged

FULL = 1.0


def check_detail(detail: float) -> None:
    """InputError for a detail outside of 0 to 1."""
    if not 0 <= detail <= FULL:
        raise InputError(f"A detail of {detail}: expected 0 (bicubic) to 1 (all of it).")


def with_detail(frames: Tensor, low_res: Tensor, detail: float) -> Tensor:
    """Upscaled frames with some of their detail.

    At 1 they come back as they are; at 0 the bicubic enlargement of ``low_res`` does. At 0.5 what
    they change of the input is taken back: shrunk to its size, the result is the input again (one
    step of back-projection, Irani & Peleg 1991), and only what is finer is new. Towards 0 the new
    fades, towards 1 the changes come in.

    frames (1,3,t,4h,4w) and low_res (1,3,t,h,w), both in [-1, 1]; frame by frame in fp32, not
    clamped. Raises InputError on a detail out of range or shapes that differ.
    """
    check_detail(detail)
    if detail == FULL:
        return frames
    fine, coarse = min(1.0, 2 * detail), max(0.0, 2 * detail - 1)

    def blended(frame: Tensor, enlarged: Tensor) -> Tensor:
        changed = enlarge(F.avg_pool2d(frame, UPSCALE)) - enlarged
        return enlarged + fine * (frame - enlarged - changed) + coarse * changed

    return with_enlarged(frames, low_res, blended, "detail")
