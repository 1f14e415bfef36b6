"""Runs single nodes as ComfyUI does, in the test process."""

from __future__ import annotations

from typing import Any

import tiny
import torch
from generated import det

from uav_core.sampling import schedule

T, H, W = 10, 16, 24


def loaded() -> list[Any]:
    """The models on the device, as patchers.

    ComfyUI's list also has models whose patcher no longer exists, for example after a test that
    compiled one, until the next garbage collection.
    """
    import comfy.model_management as mm

    return [entry.model for entry in mm.current_loaded_models if not entry.is_dead()]


def frames(t: int = T, h: int = H, w: int = W) -> torch.Tensor:
    """Generated frames, IMAGE (t, h, w, 3) in [0, 1]."""
    return det(f"images {t}", (t, h, w, 3)).mul(0.2).add(0.5).clamp(0, 1)


def texts() -> tuple[list[Any], list[Any]]:
    """Positive and negative CONDITIONING."""
    negative, positive = ([[text[None], {}]] for text in tiny.context())
    return positive, negative


def conditioned(pack: Any, images: torch.Tensor, **options: Any) -> tuple[Any, Any, Any]:
    """Positive, negative and latent of 'Low-Res Conditioning'."""
    positive, negative = texts()
    settings = {"noise_level": 120, "seed": 5, "positive": positive, "negative": negative}
    node = pack.nodes.sampling.condition.LowResConditioning
    return node.execute(images, **{**settings, **options}).result


def sample(pack: Any, model: Any, images: torch.Tensor, **options: Any) -> torch.Tensor:
    """Latent samples of 'Segment Sampler'."""
    positive, negative, latent = conditioned(pack, images)
    settings = {"steps": 2, "guidance": 6.0, "seed": 9, "segment_length": 8, "overlap": 2}
    node = pack.nodes.sampling.sample.SegmentSampler
    return node.execute(model, positive, negative, latent, **{**settings, **options}).result[0][
        "samples"
    ]


def sample_case(pack: Any, model: Any, case: dict[str, Any]) -> torch.Tensor:
    """Latent samples by the nodes, for ``case``, the arguments of the core's ``upscale``."""
    condition = pack.nodes.sampling.condition.condition
    low_res = schedule.noise_low_res(case["frames"], case["low_res_noise"], case["noise_level"])
    negative, positive = (
        condition([[text[None], {}]], low_res, case["noise_level"]) for text in case["context"]
    )
    propagation = None
    if "flows" in case:
        module = pack.nodes.sampling.propagate
        propagation = module.FlowPropagation(
            None,
            case["frames"],
            ",".join(map(str, case["propagation_steps"])),
            module.PropagationParams(),
            flows=case["flows"],
        )
    return pack.nodes.sampling.sample.sample_segments(
        model,
        positive,
        negative,
        torch.zeros_like(case["noise"]),
        case["noise"],
        steps=case["steps"],
        guidance=case["guidance"],
        propagation=propagation,
    )
