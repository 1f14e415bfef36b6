"""Measure of tile joints: how much more neighbouring pixels differ there than elsewhere."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from uav_core.errors import InputError
from uav_core.metrics.clips import check_clip, frame
from uav_core.metrics.joints import jump_across


def spatial_jump(
    frames: Tensor, columns: Collection[int] = (), rows: Collection[int] = ()
) -> float:
    """How much more neighbouring pixels of a clip differ across tile borders than elsewhere.

    `columns` and `rows` hold the first column (row) after each border, in pixels of the clip,
    from 1; both directions are averaged by their number of borders. Raises InputError as
    `temporal_jump`.
    """
    check_clip(frames)
    if not columns and not rows:
        raise InputError("No tile borders: expected columns or rows at which tiles meet.")
    t = range(frames.shape[2])
    jumps = []
    for dim, borders in ((-1, columns), (-2, rows)):
        if not borders:
            continue
        steps = [frame(frames, i).diff(dim=dim).abs().movedim(dim, 0).flatten(1).mean(1) for i in t]
        jump = jump_across(torch.stack(steps).mean(0), borders, "column" if dim == -1 else "row")
        jumps += [jump] * len(set(borders))
    return sum(jumps) / len(jumps)
