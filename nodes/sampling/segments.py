"""Segments of a clip as ComfyUI context windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.context_windows as cw
import comfy.model_patcher
from torch import Tensor

from ...uav_core.callbacks import ignore
from ...uav_core.errors import InputError
from ...uav_core.sampling.ladder import StepDown
from ...uav_core.sampling.segments import OVERLAP, SEGMENT_LENGTH, Segment, blend, plan_segments
from ..base.runtime import check_cancelled
from .caches import count_skipped, of_part
from .tiles import step_down_on

TIME = 2

# Called after each segment with its predicted clean latents: positive, then negative if any.
OnSegment = Callable[[Sequence[Tensor]], None]


class SegmentHandler(cw.IndexListContextHandler):
    """Runs the model on one segment after the other and blends them as the reference does.

    ComfyUI's own fuse methods average all windows. The reference mixes the overlap of each segment
    half and half with the result of the earlier ones.
    """

    def __init__(
        self,
        length: int = SEGMENT_LENGTH,
        overlap: int = OVERLAP,
        on_segment: OnSegment | None = None,
    ) -> None:
        super().__init__(
            context_schedule=cw.ContextSchedule("upscale_a_video", self._index_lists),
            fuse_method=cw.get_matching_fuse_method(cw.ContextFuseMethods.FLAT),
            context_length=length,
            context_overlap=overlap,
            dim=TIME,
        )
        # Newer ComfyUI prepends the frame before each window by default; the segments must stay
        # as they are. Set here because older constructors do not take it.
        self.causal_window_fix = False
        self.on_segment = on_segment

    def plan(self, frames: int) -> tuple[Segment, ...]:
        return plan_segments(frames, self.context_length, self.context_overlap)

    def _index_lists(self, frames: int, *_: Any) -> list[list[int]]:
        return [list(range(s.start, s.stop)) for s in self.plan(frames)]

    def should_use_context(
        self, model: Any, conds: Any, x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
    ) -> bool:
        if x_in.size(TIME) <= self.context_length:
            return False
        if len(x_in) > 1:
            raise InputError(
                f"The latent holds {len(x_in)} clips: segments take one clip at a time. Sample "
                "them one after the other."
            )
        return True

    def get_resized_cond(
        self, cond_in: Any, x_in: Tensor, window: Any, device: Any = None
    ) -> list[Any] | None:
        """The conditionings of one window: their frames and masks of frames are cut to it.

        ComfyUI cuts whatever has as many numbers on its third axis as the clip has frames, such as
        a text of that width or a mask of that height. 0.3.75 does not cut the frames.
        """
        resized = super().get_resized_cond(cond_in, x_in, window, device)
        count = x_in.size(TIME)
        for own, cond in zip(cond_in or (), resized or (), strict=True):
            conds = cond["model_conds"] = dict(own["model_conds"])
            frames = conds["c_concat"]
            if frames.cond.size(TIME) == count:
                part = window.get_tensor(frames.cond, device, dim=TIME)
                conds["c_concat"] = frames._copy_with(part)
            if isinstance(mask := own.get("mask"), Tensor):  # (1, frames or 1, h, w)
                each = mask.ndim == 4 and mask.size(1) == count
                cond["mask"] = window.get_tensor(mask, device, dim=1) if each else mask
        return resized

    def evaluate_context_windows(
        self,
        calc_cond_batch: Callable[..., Any],
        model: Any,
        x_in: Tensor,
        conds: Any,
        timestep: Tensor,
        enumerated_context_windows: list[tuple[int, Any]],
        model_options: dict[str, Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        check_cancelled()
        options = model_options["transformer_options"]
        own = of_part(options, enumerated_context_windows[0][0])
        results = super().evaluate_context_windows(
            calc_cond_batch,
            model,
            x_in,
            conds,
            timestep,
            enumerated_context_windows,
            {**model_options, "transformer_options": own},
            *args,
            **kwargs,
        )
        count_skipped(options)
        return results

    def combine_context_window_results(
        self,
        x_in: Tensor,
        sub_conds_out: list[Tensor],
        sub_conds: Any,
        window: Any,
        window_idx: int,
        total_windows: int,
        timestep: Tensor,
        conds_final: list[Tensor],
        counts_final: list[Tensor],
        biases_final: Any,
    ) -> None:
        plan = self.plan(x_in.size(TIME))
        covered = plan[window_idx - 1].stop if window_idx else 0
        for total, count, part in zip(conds_final, counts_final, sub_conds_out, strict=True):
            blend(total, covered, plan[window_idx], part)
            # ComfyUI divides by the counts at the end, but this is already an average.
            count.fill_(1)
        if self.on_segment is not None:
            self.on_segment(sub_conds_out)


def with_segments(
    model: comfy.model_patcher.ModelPatcher,
    length: int,
    overlap: int,
    on_segment: OnSegment | None = None,
    on_step: Callable[[StepDown], None] = ignore,
) -> comfy.model_patcher.ModelPatcher:
    """A clone of ``model`` that samples in segments, and budgets memory for one segment.

    If memory runs out it goes on with less at once, and calls ``on_step`` with the step down.
    """
    plan_segments(length, length, overlap)
    model = model.clone()
    options: dict[str, Any] = model.model_options
    options["context_handler"] = SegmentHandler(length, overlap, on_segment)
    cw.create_prepare_sampling_wrapper(model)
    step_down_on(model, on_step)
    return model
