"""Views of a clip: its detail as a number, and pictures of what numbers cannot show.

Clips are (1, 3, t, h, w) in [-1, 1], as everywhere in the core, and so are the pictures.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..sampling.propagation import PropagationParams, consistent
from .clips import check_alike, check_clip, frame

FACTORS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)


def detail(frames: Tensor) -> float:
    """Mean length of the brightness gradient in a clip (1,3,t,h,w), for brightness in [0, 1].

    More is not always better, as noise has much of it. Next to a low warping error it tells a
    steady clip from a blurred one.
    """
    check_clip(frames)
    values = []
    for i in range(frames.shape[2]):
        grey = frame(frames, i).mean(dim=1)
        across, down = grey.diff(dim=-1)[:, :-1], grey.diff(dim=-2)[:, :, :-1]
        values.append((across.square() + down.square()).sqrt().mean())
    return float(torch.stack(values).mean())


def temporal_profile(frames: Tensor, row: int) -> Tensor:
    """One row of every frame, below each other: flicker shows as stripes, motion as slopes.

    frames (1,3,t,h,w), any range, give (3,t,w). Raises InputError for a row outside.
    """
    check_clip(frames)
    h = frames.shape[-2]
    if not 0 <= row < h:
        raise InputError(f"Profile of row {row}: expected 0 to {h - 1}.")
    return frames[0, :, :, row]


def longest_motion(*flows: Tensor) -> float:
    """The motion in pixels that 99 % of the vectors do not exceed; at least 1.

    A few wrong vectors must not weaken the colours of all others.
    """
    lengths = torch.cat([flow.square().sum(dim=1).sqrt().flatten() for flow in flows])
    if lengths.numel() == 0:
        return 1.0
    return max(1.0, _nearly_most(lengths, 0.99))


def flow_picture(flow: Tensor, longest: float | None = None) -> Tensor:
    """Flow (1, 2, t, h, w) in colours: hue is the direction, strength the length.

    The colour wheel of Baker et al., "A database and evaluation methodology for optical flow"
    (IJCV 2011), drawn by torchvision; white is no motion. ``longest`` is the motion in pixels with
    the full colour, ``longest_motion(flow)`` if None. Raises InputError for another shape.
    """
    if flow.ndim != 5 or flow.shape[:2] != (1, 2):
        raise InputError(f"The flow is {tuple(flow.shape)}: expected (1, 2, t, h, w).")
    # Imported here: torchvision is heavy, and only this picture needs it.
    from torchvision.utils import flow_to_image

    longest = longest_motion(flow) if longest is None else longest
    result = flow.new_empty((1, 3, *flow.shape[2:]))
    _, _, count, h, w = flow.shape
    for i in range(count):
        length = flow[0, :, i].square().sum(dim=0).sqrt()
        bounded = flow[0, :, i] * (longest / length.clamp(min=longest))
        # torchvision scales by the longest vector of its input: one more column has that length,
        # and is cut off.
        scale = bounded.new_zeros((2, h, 1))
        scale[0] = longest
        colours = flow_to_image(torch.cat([bounded, scale], dim=2).float())[:, :, :w]
        result[0, :, i] = colours.to(result).div(127.5).sub(1)
    return result


def validity(forward: Tensor, backward: Tensor, params: PropagationParams | None = None) -> Tensor:
    """Where propagation trusts the motion: (1, 1, t, h, w) bool, of flows (1, 2, t, h, w).

    The flow there and back must end near the start; otherwise something is hidden or the flow is
    wrong, and the frame keeps its own latent.
    """
    params = params or PropagationParams()
    pairs = zip(forward.unbind(2), backward.unbind(2), strict=True)
    parts = [consistent(there, back, params) for there, back in pairs]
    if not parts:
        return forward.new_zeros((1, 1, *forward.shape[2:]), dtype=torch.bool)
    return torch.stack(parts, dim=2)


def difference(first: Tensor, second: Tensor, factor: float | None = None) -> tuple[Tensor, float]:
    """The difference of two clips, brightened by a factor, and that factor. Black means equal.

    Without a ``factor``, the largest of FACTORS is chosen that clips at most one in a thousand
    values of any frame. Raises InputError for clips of different sizes.
    """
    check_alike(first, second)
    count = first.shape[2]
    if factor is None:
        most = max(_nearly_most(_apart(first, second, i), 0.999) for i in range(count))
        factor = max((f for f in FACTORS if f * most <= 1), default=1.0)
    result = torch.empty_like(first)
    for i in range(count):
        result[:, :, i] = _apart(first, second, i).mul(factor).clamp(0, 1).mul(2).sub(1)
    return result, factor


def divided(before: Tensor, after: Tensor, position: float = 0.5, line: int = 2) -> Tensor:
    """The left of ``before`` and the right of ``after``, with a white line of ``line`` px between.

    ``position`` is the line's, 0 left to 1 right. Raises InputError for clips of different sizes.
    """
    check_alike(before, after)
    w = before.shape[-1]
    edge = round(position * w)
    result = torch.cat([before[..., :edge], after[..., edge:]], dim=-1)
    left = min(max(0, edge - line // 2), w - line)
    result[..., left : left + line] = 1
    return result


def thumbnail(picture: Tensor, height: int) -> Tensor:
    """A picture (3, h, w) resized to ``height`` with its aspect kept: (3, height, width)."""
    h, w = picture.shape[-2:]
    size = height, max(1, round(w * height / h))
    return F.interpolate(picture[None].float(), size, mode="bicubic", antialias=True)[0].clamp(
        -1, 1
    )


def _apart(first: Tensor, second: Tensor, index: int) -> Tensor:
    """(1, 3, h, w) in [0, 1]: the difference of two frames."""
    return (frame(first, index) - frame(second, index)).abs()


def _nearly_most(values: Tensor, share: float) -> float:
    """The quantile: the value that this share of the values does not exceed."""
    flat = values.flatten()
    return float(flat.kthvalue(max(1, round(share * len(flat)))).values)
