"""ComfyUI's step caches, EasyCache and LazyCache: each part of a clip gets its own state."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
from torch import Tensor

log = logging.getLogger(__name__)

# Key of both caches' state in the transformer options, and the keys of their wrappers.
STATE = "easycache"
_KEYS = (STATE, "lazycache")
_PARTS = "upscale_a_video_parts"


def full_step(model_options: dict[str, Any]) -> None:
    """Keep the caches from skipping the next evaluation of the model.

    A step that propagates must use a real prediction, not the guess of a cache.
    """
    _forbid_skipping(model_options.get("transformer_options", {}).get(STATE))


def _forbid_skipping(state: Any) -> None:
    if hasattr(state, "cumulative_change_rate"):
        # The cache skips below a threshold, and resets this value after a full evaluation.
        state.cumulative_change_rate = math.inf
    for part in getattr(state, _PARTS, {}).values():
        _forbid_skipping(part)


def of_part(transformer_options: dict[str, Any], part: int) -> dict[str, Any]:
    """The transformer options with the cache state of one segment or tile.

    EasyCache compares an evaluation with the one before it. In segments or tiles that is another
    place of the clip, so a shared state would reuse the detail of another place.
    """
    whole: Any = transformer_options.get(STATE)
    if not hasattr(whole, "uuid_cache_diffs"):  # no cache, or LazyCache, which sees whole clips
        return transformer_options
    # Kept on the whole clip's state, as ComfyUI makes that for a run and drops it afterwards.
    parts = whole.__dict__.setdefault(_PARTS, {})
    if part not in parts:
        own = parts[part] = whole.clone()
        own.start_t, own.end_t = whole.start_t, whole.end_t
    return {**transformer_options, STATE: parts[part]}


def count_skipped(transformer_options: dict[str, Any]) -> None:
    """Make the cache report the mean number of steps that the parts skipped."""
    whole: Any = transformer_options.get(STATE)
    if parts := getattr(whole, _PARTS, None):
        total = sum(part.total_steps_skipped for part in parts.values())
        whole.total_steps_skipped = round(total / len(parts))


def part_by_part(apply_model: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``apply_model`` with a cache state for each tile; the order of tiles must not change."""
    tile = 0

    def apply(x: Tensor, timestep: Tensor, **conds: Any) -> Tensor:
        nonlocal tile
        options = conds.get("transformer_options")
        if not options or STATE not in options:
            return apply_model(x, timestep, **conds)
        own = of_part(options, tile)
        tile += 1
        state, step = own[STATE], float(timestep.flatten()[0])
        if getattr(state, "step", step) != step:
            # ComfyUI resets this at a new step only on its own state.
            state.skip_current_step = False
        state.step = step
        result = apply_model(x, timestep, **{**conds, "transformer_options": own})
        count_skipped(options)
        return result

    return apply


def without_caches(model: comfy.model_patcher.ModelPatcher) -> None:
    """Take the caches off ``model``, with a warning if there were any."""
    options: dict[str, Any] = model.model_options.get("transformer_options", {})
    if options.get(STATE) is None:
        return
    log.warning(
        "EasyCache and LazyCache have no effect on a long video: its segments are at different "
        "steps at the same time."
    )
    types = comfy.patcher_extension.WrappersMP
    for kind in (
        types.OUTER_SAMPLE,
        types.CALC_COND_BATCH,
        types.DIFFUSION_MODEL,
        types.PREDICT_NOISE,
    ):
        for key in _KEYS:
            model.remove_wrappers_with_key(kind, key)
    model.model_options["transformer_options"] = {
        name: value for name, value in options.items() if name != STATE
    }
