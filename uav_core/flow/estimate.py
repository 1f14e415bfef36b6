"""Optical flow between neighbouring frames with RAFT (Teed & Deng 2020, arXiv 2003.12039).

The network is torchvision's `raft_large`; weights come in its own names or in those of the
authors' `raft-things.pth`. A flow is (dx, dy) in pixels: what is at p in the first image is at
p + flow(p) in the second.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..callbacks import Progress, ignore
from ..devices import memory
from ..errors import InputError, MissingPackageError
from ..weights.checkpoints import Kind, load_checkpoint, strict_load
from ..weights.raft import raft_to_torchvision
from .raft import Encoded, encode, flow_between, in_fp32, is_raft

ITERATIONS = 20
SMALLEST_SIDE = 16

# The network works at 1/8 and pools its correlations three times more: a side under 128 would
# leave the last level one cell wide, where sampling divides by zero.
_STRIDE = 8
_NETWORK_SIDE = 128
# Of a pair, where several are estimated together; and how many at the most.
_BYTES_PER_PIXEL = 1500
_MOST_PAIRS = 16
# How far the long side of a small, very oblong image may grow to keep the aspect.
_LONGEST_ENLARGED = 1024


def load_flow_model(source: str | os.PathLike[str] | Mapping[str, Tensor]) -> nn.Module:
    """torchvision's RAFT-large in fp32 and eval mode, from weights in either layout.

    `source` is a path or a state dict. Raises a CheckpointError that says what it looks like, and
    MissingPackageError without torchvision.
    """
    checkpoint = load_checkpoint(source, (Kind.RAFT, Kind.RAFT_TORCHVISION))
    try:
        # Imported here: torchvision is heavy, and only flow needs it.
        from torchvision.models.optical_flow import raft_large
    except ImportError as error:
        raise MissingPackageError(
            f"RAFT needs the package torchvision, which cannot be imported ({error}). Install the "
            "one that belongs to your PyTorch, or use the built-in flow."
        ) from error

    model = raft_large(weights=None, progress=False)
    state_dict = checkpoint.state_dict
    if checkpoint.kind is Kind.RAFT:
        state_dict = raft_to_torchvision(state_dict)
    strict_load(model, state_dict, checkpoint.source)
    return model.eval().requires_grad_(False)


class NeighbourFlow:
    """Flow between the neighbours of a clip, in both directions.

    RAFT encodes every frame once: the later one of a pair is kept, encoded, as it is mostly the
    earlier one of the next.

    `model` is torchvision's RAFT on any device and in any dtype; it computes in fp32 there. A
    model whose `any_size` is true, such as `uav_core.flow.builtin.BuiltinFlow`, gets the images
    as they are.
    """

    def __init__(self, model: nn.Module, iterations: int = ITERATIONS) -> None:
        """Raises InputError for less than 1 iteration."""
        if iterations < 1:
            raise InputError(f"flow needs 1 iteration or more, but got {iterations}.")
        self.model, self.iterations = model, iterations
        self._kept: tuple[Tensor, Encoded] | None = None

    @torch.no_grad()
    def both_ways(self, image1: Tensor, image2: Tensor) -> Iterator[Tensor]:
        """Gives the flow from `image1` to `image2`, then the one back, each as `estimate_flow`."""
        _check_images(image1, image2)
        model, device = in_fp32(self.model), next(self.model.parameters()).device
        h, w = image1.shape[-2:]
        size = (h, w) if getattr(model, "any_size", False) else _network_size(h, w)

        def given(image: Tensor) -> Tensor:
            image = image.to(device, torch.float32)
            if size == (h, w):
                return image
            return F.interpolate(image, size, mode="bilinear", align_corners=False)

        def encoded(image: Tensor) -> Encoded:
            if self._kept is None or not torch.equal(self._kept[0], image):
                self._kept = image, encode(model, given(image)).to(image.device)
            return self._kept[1].to(device)

        def between(a: Any, b: Any) -> Tensor:
            if shared:
                return flow_between(model, a, b, self.iterations)
            return model(a, b, num_flow_updates=self.iterations)[-1]

        shared = is_raft(model)
        prepared = encoded if shared else given
        # Not around the whole: between two flows the caller's own settings hold.
        with torch.autocast(device.type, enabled=False):
            ends = prepared(image1), prepared(image2)
        for a, b in (ends, ends[::-1]):
            with torch.autocast(device.type, enabled=False):
                flow = between(a, b)
            yield stretch_flow(flow, h, w).to(image1.device)


def estimate_flow(
    model: nn.Module, image1: Tensor, image2: Tensor, iterations: int = ITERATIONS
) -> Tensor:
    """The flow from `image1` to `image2`, both (n,3,h,w) in [-1, 1], as (n,2,h,w) fp32 in pixels.

    Any size from 16 px up. Sides that are not multiples of 8 are resized up to one; images
    with a side under 128 px, RAFT's least, are enlarged first, with their aspect kept as far
    as the long side stays within 1024 px. The flow is resized back, each axis with its own
    ratio, and comes on image1's device. `model` as for `NeighbourFlow`. Raises InputError.
    """
    return next(NeighbourFlow(model, iterations).both_ways(image1, image2))


def estimate_flows(
    model: nn.Module,
    frames: Tensor,
    iterations: int = ITERATIONS,
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
) -> tuple[Tensor, Tensor]:
    """Flows between neighbouring frames of a clip: (forward, backward), each (1,2,t-1,h,w) fp32.

    frames (1,3,t,h,w) in [-1, 1]. forward[i] leads from frame i to i+1, backward[i] from i+1 to
    i; both on the frames' device, in pixels. One frame gives two empty flows. Memory grows with
    (h w)^2: the network correlates all with all at 1/8 scale. A GPU takes as many pairs at once as
    fit. `check_cancelled()` is called before the flows of either direction and may raise;
    `progress(done, total)` after them. Raises InputError.
    """
    if frames.ndim != 5 or frames.shape[:2] != (1, 3) or frames.shape[2] < 1:
        raise InputError(f"flow needs frames as (1, 3, t, h, w), but got {tuple(frames.shape)}.")
    sequence = rearrange(frames, "1 c t h w -> t 1 c h w")
    pairs, (h, w) = len(sequence) - 1, sequence.shape[-2:]
    flows = frames.new_empty((2, pairs, 2, h, w), dtype=torch.float32)
    neighbours = NeighbourFlow(model, iterations)
    sequence = sequence.flatten(0, 1)
    most = pairs_at_once(next(model.parameters()).device, h, w)
    for first in range(0, pairs, most):
        last = min(first + most, pairs)
        ways = neighbours.both_ways(sequence[first:last], sequence[first + 1 : last + 1])
        for direction in range(2):
            check_cancelled()
            flows[direction, first:last] = next(ways)
            progress(2 * first + (direction + 1) * (last - first), 2 * pairs)
    forward, backward = rearrange(flows, "d t c h w -> d 1 c t h w")
    return forward, backward


def pairs_at_once(device: torch.device, h: int, w: int) -> int:
    """Pairs of frames (h, w) that are estimated together: on a CPU, or where memory is short, one.

    Small kernels do not fill a card, and wait for the CPU that launches them.
    """
    free = None if device.type == "cpu" else memory.free(device)
    h, w = _network_size(h, w)
    # RAFT's correlations and their pyramid, twice; features, or the built-in flow's derivatives.
    needed = 2 * 4 * 4 // 3 * (h * w // _STRIDE**2) ** 2 + _BYTES_PER_PIXEL * h * w
    return 1 if free is None else max(1, min(_MOST_PAIRS, free // 2 // needed))


def stretch_flow(flow: Tensor, h: int, w: int) -> Tensor:
    """A flow (n,2,h0,w0) at another size, bilinear, each component scaled with its own axis."""
    h0, w0 = flow.shape[-2:]
    if (h0, w0) == (h, w):
        return flow
    flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([w / w0, h / h0]).view(1, 2, 1, 1)


def _check_images(image1: Tensor, image2: Tensor) -> None:
    if image1.shape != image2.shape or image1.ndim != 4 or image1.shape[1] != 3:
        raise InputError(
            "flow needs two images (n, 3, h, w) of one size, but got "
            f"{tuple(image1.shape)} and {tuple(image2.shape)}."
        )
    h, w = image1.shape[-2:]
    if min(h, w) < SMALLEST_SIDE:
        raise InputError(
            f"flow needs frames of at least {SMALLEST_SIDE} px a side, but these are {w} x {h}."
        )


def _network_size(h: int, w: int) -> tuple[int, int]:
    """The least h, w the network takes for an image of that size: see estimate_flow."""
    enlarge = max(1.0, _NETWORK_SIDE / min(h, w))

    def side(pixels: int) -> int:
        enlarged = min(pixels * enlarge, max(pixels, _LONGEST_ENLARGED))
        return _STRIDE * math.ceil(max(enlarged, _NETWORK_SIDE) / _STRIDE)

    return side(h), side(w)
