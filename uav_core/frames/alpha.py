"""Alpha for upscaled frames: the input's, its edges laid along those of the upscaled colours.

A guided filter (He et al., "Guided image filtering", TPAMI 2013, and "Fast guided filter", arXiv
1505.00996): where alpha changes it is fitted, in small windows of the input's size, as a linear
function of the colour, and that function is applied to the upscaled colours. kornia's own
``guided_blur`` fits at the large size, to an alpha that is blurred there already, or on every n-th
pixel; here colours are averaged over the area of alpha's pixels, so that both show the same thing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..callbacks import Progress, ignore
from ..errors import InputError

WINDOW = 5
"""Side of the window in which the function is fitted, in pixels of the input."""
SMALLEST_CONTRAST = 0.05
"""Colours that differ by less than about this, of 1, do not move an edge."""


def upscale_alpha(
    alpha: Tensor,
    frames: Tensor,
    *,
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> Tensor:
    """Alpha at the size of the upscaled frames.

    Args:
        alpha: (t, h, w) in [0, 1].
        frames: (t, h2, w2, 3) in [0, 1], upscaled from the frames that alpha belongs to.
        progress: called with (frames done, frames in all).
        check_cancelled: called before every frame; may raise.

    Returns:
        (t, h2, w2) in [0, 1]. Nowhere more or less than what is next to it in ``alpha``: what is
        opaque or clear in the input stays so.

    Raises:
        InputError: another number of frames, or frames smaller than alpha.
    """
    if alpha.ndim != 3 or frames.ndim != 4 or 0 in alpha.shape or frames.shape[3] < 3:
        raise InputError(
            f"Alpha is {tuple(alpha.shape)} and the frames {tuple(frames.shape)}: expected "
            "(frames, height, width) and (frames, height, width, 3)."
        )
    if len(alpha) != len(frames):
        raise InputError(
            f"Alpha has {len(alpha)} frames, the upscaled clip {len(frames)}: expected the same. "
            "Take both from the same clip."
        )
    if frames.shape[1] < alpha.shape[1] or frames.shape[2] < alpha.shape[2]:
        raise InputError(
            f"Alpha is {alpha.shape[2]}x{alpha.shape[1]}, the frames are "
            f"{frames.shape[2]}x{frames.shape[1]}: expected upscaled frames, larger than alpha."
        )
    result = frames.new_empty(frames.shape[:3])
    for i in range(len(frames)):
        check_cancelled()
        guide = frames[i, ..., :3].movedim(-1, 0)[None].float()
        result[i] = guided_upscale(alpha[i][None, None].to(guide), guide)[0, 0]
        progress(i + 1, len(frames))
    return result


def guided_upscale(alpha: Tensor, guide: Tensor) -> Tensor:
    """``alpha`` (n, 1, h, w) at the size of ``guide`` (n, c, h2, w2), both in [0, 1]."""
    size = guide.shape[-2:]
    small = F.interpolate(guide, alpha.shape[-2:], mode="area")
    slope = F.interpolate(_slope(small, alpha), size, mode="bilinear")
    # What is the same at both sizes is left to plain interpolation: where colour says nothing of
    # alpha, that is what comes out.
    detail = guide - F.interpolate(small, size, mode="bicubic")
    result = F.interpolate(alpha, size, mode="bicubic") + (slope * detail).sum(1, keepdim=True)
    padded = F.pad(alpha.clamp(0, 1), (1, 1, 1, 1), mode="replicate")
    most = F.interpolate(F.max_pool2d(padded, 3, 1), size, mode="nearest")
    least = F.interpolate(-F.max_pool2d(-padded, 3, 1), size, mode="nearest")
    return result.clamp(least, most)


def _slope(colour: Tensor, alpha: Tensor) -> Tensor:
    """How alpha changes with each colour around every pixel: (n, c, h, w)."""
    c = colour.shape[1]
    mean_colour, mean_alpha = _mean(colour), _mean(alpha)
    pairs = _mean((colour[:, :, None] * colour[:, None]).flatten(1, 2)).unflatten(1, (c, c))
    spread = pairs - mean_colour[:, :, None] * mean_colour[:, None]
    together = _mean(colour * alpha) - mean_colour * mean_alpha
    noise = torch.eye(c, device=colour.device) * SMALLEST_CONTRAST**2
    slope = torch.linalg.solve(
        spread.permute(0, 3, 4, 1, 2) + noise, together.permute(0, 2, 3, 1)[..., None]
    )
    return _mean(slope[..., 0].permute(0, 3, 1, 2))


def _mean(x: Tensor) -> Tensor:
    """The mean in a window around every pixel; beyond the border the last pixel goes on."""
    side = WINDOW // 2
    return F.avg_pool2d(F.pad(x, (side,) * 4, mode="replicate"), WINDOW, 1)
