"""How much detail the frames have: from none (plain enlargement) over all to more than all."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..models.vae import UPSCALE
from .color import enlarge, with_enlarged

FULL, MOST = 1.0, 1.5


def check_detail(detail: float) -> None:
    """Raise InputError for a detail outside of 0 to MOST."""
    if not 0 <= detail <= MOST:
        raise InputError(
            f"Detail is {detail}: expected 0 (bicubic) to {MOST:g}, where 1 is the result as it is."
        )


def with_detail(frames: Tensor, low_res: Tensor, detail: float) -> Tensor:
    """Upscaled frames with some of their detail, or with more.

    At 1 the frames are returned unchanged, at 0 the bicubic enlargement of ``low_res``. At 0.5
    their changes to the input are removed: shrunk to its size, the result is the input again (by
    one step of back-projection, Irani & Peleg 1991), and only finer detail is new. From 0.5 down
    to 0 this detail fades out, from 0.5 up to 1 the changes fade in. Above 1 the finer detail is
    amplified: it is multiplied by ``detail``.

    frames (1,3,t,4h,4w) and low_res (1,3,t,h,w), both in [-1, 1]; frame by frame in fp32, not
    clamped. Raises InputError for a detail out of range or wrong shapes.
    """
    check_detail(detail)
    if detail == FULL:
        return frames
    fine, coarse = min(max(1.0, detail), 2 * detail), min(1.0, max(0.0, 2 * detail - 1))

    def blended(frame: Tensor, enlarged: Tensor) -> Tensor:
        changed = enlarge(F.avg_pool2d(frame, UPSCALE)) - enlarged
        return enlarged + fine * (frame - enlarged - changed) + coarse * changed

    return with_enlarged(frames, low_res, blended, "detail")
