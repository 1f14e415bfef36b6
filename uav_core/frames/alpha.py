"""Alpha for upscaled frames: the input's alpha, its edges aligned with the upscaled colours."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..callbacks import Progress, ignore
from ..errors import InputError
from .guided import crisp, enlarged


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
        (t, h2, w2) in [0, 1]. Every value lies within the range of the nearby values of ``alpha``:
        what is opaque or clear in the input stays so.

    Raises:
        InputError: different numbers of frames, or frames smaller than alpha.
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
            f"{frames.shape[2]}x{frames.shape[1]}: expected upscaled frames, not smaller than "
            "alpha."
        )
    result = frames.new_empty(frames.shape[:3])
    for i in range(len(frames)):
        check_cancelled()
        guide = frames[i, ..., :3].movedim(-1, 0)[None].float() * 2 - 1
        small = alpha[i][None, None].to(guide).clamp(0, 1)
        result[i] = crisp(enlarged(small, guide), small)[0, 0]
        progress(i + 1, len(frames))
    return result
