"""Guidance for a part of the run, by ComfyUI's own guider."""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import comfy.samplers
from torch import Tensor

from ...uav_core.sampling.guidance import GuidanceRange


class RangedGuider(comfy.samplers.CFGGuider):
    """A CFGGuider that uses the negative text only at the steps of a guidance range."""

    def __init__(
        self, model: comfy.model_patcher.ModelPatcher, guided: GuidanceRange, sigmas: Tensor
    ) -> None:
        """``sigmas`` (steps + 1) are those that the sampler will run."""
        super().__init__(model)
        self.guided, self.sigmas = guided, sigmas

    def predict_noise(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        whole = self.cfg
        if not self._is_guided(timestep):
            self.cfg = 1.0
        try:
            return super().predict_noise(x, timestep, *args, **kwargs)
        finally:
            self.cfg = whole

    def _is_guided(self, sigma: Tensor) -> bool:
        if self.guided.is_whole:
            return True
        # The last step whose sigma is this one or larger; 0.9999 allows for rounding.
        begun = self.sigmas[:-1] >= 0.9999 * sigma.max().to(self.sigmas)
        step = max(0, int(begun.sum()) - 1)
        return self.guided.covers(step, len(self.sigmas) - 1)
