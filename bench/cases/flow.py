"""Optical flow of a clip in both directions: the pack against one call for each direction."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import ITERATIONS, estimate_flows

from .case import Case, Setup, noise

FLOW_FRAMES = 4
RAFT_SIDE = 128
"""Least side of images for RAFT."""


def builtin_flow_case(setup: Setup) -> Case:
    """The built-in flow, which has no weights."""
    return flow_case("built-in", BuiltinFlow().to(setup.device), setup)


def raft_case(setup: Setup) -> Case | None:
    """torchvision's RAFT with random weights; None if torchvision cannot be imported."""
    try:
        from torchvision.models.optical_flow import raft_large
    except (ImportError, RuntimeError):  # RuntimeError: built for another PyTorch
        return None
    torch.manual_seed(0)
    model = raft_large(weights=None).eval().requires_grad_(False).to(setup.device)
    return flow_case("RAFT", model, setup)


def flow_case(name: str, model: nn.Module, setup: Setup) -> Case:
    """Flows of a clip whose picture moves by 1.5 pixels per frame."""
    side = max(4 * setup.size, RAFT_SIDE)
    iterations = 4 if setup.quick else ITERATIONS
    frames = drifting_clip(FLOW_FRAMES, side, setup.device)
    return Case(
        f"Flow ({name}), {FLOW_FRAMES} frames of {side}x{side}, both directions",
        lambda: torch.cat(estimate_flows(model, frames, iterations)),
        lambda: plain_flows(model, frames, iterations),
        # 20 iterations of a solver with thresholds amplify rounding errors.
        tolerance=1e-2,
    )


def drifting_clip(frames: int, side: int, device: torch.device) -> Tensor:
    """A clip (1, 3, t, side, side) of a smooth random picture that moves to the left."""
    small = noise(device, 1, 3, side // 8, side // 4)
    picture = nn.functional.interpolate(small, (side, 2 * side), mode="bicubic").clamp(-1, 1)
    steps = [round(1.5 * i) for i in range(frames)]
    return torch.stack([picture[..., x : x + side] for x in steps], dim=2)


def plain_flows(model: Callable[..., list[Tensor]], frames: Tensor, iterations: int) -> Tensor:
    """One call of the model for every pair and direction."""
    images = frames[0].transpose(0, 1)
    pairs = list(itertools.pairwise(images))
    ways = (pairs, [(b, a) for a, b in pairs])
    flows = [
        torch.cat([model(a[None], b[None], num_flow_updates=iterations)[-1] for a, b in way])
        for way in ways
    ]
    return torch.stack(flows).transpose(1, 2)
