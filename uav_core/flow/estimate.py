"""Optical flow between neighbouring frames with RAFT (Teed & Deng 2020, arXiv 2003.12039).

The network is torchvision's `raft_large`; weights may have its own names or those of the authors'
`raft-things.pth`. A flow is (dx, dy) in pixels: what is at p in the first image is at p + flow(p)
in the second.

RAFT correlates every position with every other at 1/8 of the size: at 1920x1080 one pair takes
5.6 GB, at 960x540 0.35 GB. A flow from tiles would lose all motion between them, so large frames
may be shrunk instead, to a longest side.
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

# The network works at 1/8 of the size and halves its correlations three times: a side under 128
# would leave the last level one cell wide, where sampling divides by zero.
_STRIDE = 8
_NETWORK_SIDE = 128
# Memory of a pair where several are estimated together, and the most pairs at once.
_BYTES_PER_PIXEL = 1500
_MOST_PAIRS = 16
# How far the long side of a small, very oblong image may grow to keep the aspect.
_LONGEST_ENLARGED = 1024


def load_flow_model(source: str | os.PathLike[str] | Mapping[str, Tensor]) -> nn.Module:
    """torchvision's RAFT-large in fp32 and eval mode, from weights in either layout.

    `source` is a path or a state dict. Raises a CheckpointError that says what it looks like if it
    is not RAFT's, and MissingPackageError without torchvision.
    """
    checkpoint = load_checkpoint(source, (Kind.RAFT, Kind.RAFT_TORCHVISION))
    try:
        # Imported here: torchvision is heavy, and only flow needs it.
        from torchvision.models.optical_flow import raft_large
    except ImportError as error:
        raise MissingPackageError(
            f"RAFT needs the package torchvision, which cannot be imported ({error}). Install the "
            "version for your PyTorch, or use the built-in flow."
        ) from error

    model = raft_large(weights=None, progress=False)
    state_dict = checkpoint.state_dict
    if checkpoint.kind is Kind.RAFT:
        state_dict = raft_to_torchvision(state_dict)
    strict_load(model, state_dict, checkpoint.source)
    return model.eval().requires_grad_(False)


class NeighbourFlow:
    """Flow between the neighbours of a clip, in both directions.

    With RAFT every frame is encoded once: the encoded later frame of a pair is kept, as it is
    usually the earlier one of the next pair.

    `model` is torchvision's RAFT on any device and in any dtype; it computes in fp32 there. A
    model whose `any_size` is true, such as `uav_core.flow.builtin.BuiltinFlow`, gets images that
    are not resized for a network.
    """

    def __init__(self, model: nn.Module, iterations: int = ITERATIONS) -> None:
        """Raises InputError for less than 1 iteration."""
        if iterations < 1:
            raise InputError(f"{iterations} flow iterations: expected 1 or more.")
        self.model, self.iterations = model, iterations
        self._kept: tuple[Tensor, Encoded] | None = None

    @torch.no_grad()
    def both_ways(
        self, image1: Tensor, image2: Tensor, longest_side: int | None = None
    ) -> Iterator[Tensor]:
        """Yields the flow from `image1` to `image2`, then the one back, each as `estimate_flow`.

        Images whose longer side is over `longest_side` pixels are shrunk to it; the flow is then
        enlarged and its values are scaled. None never shrinks. Shrinking by s costs: things
        thinner than about s pixels move with what is behind them, the borders of moving things are
        drawn s pixels wide, and errors of the estimate grow s times. Fast motion is followed
        better, not worse. Raises InputError, also for a bound under 16 px.
        """
        _check_images(image1, image2)
        model, device = in_fp32(self.model), next(self.model.parameters()).device
        h, w = image1.shape[-2:]
        bound = bounded_size(h, w, longest_side)
        if bound != (h, w):
            image1, image2 = (_shrunk(image, bound) for image in (image1, image2))
        size = bound if getattr(model, "any_size", False) else _network_size(*bound)

        def given(image: Tensor) -> Tensor:
            image = image.to(device, torch.float32)
            if size == bound:
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

        def ways(a: Any, b: Any) -> Iterator[Tensor]:
            if shared or _one_by_one(device):
                yield between(a, b)
                yield between(b, a)
            else:
                # Thousands of small kernels, which a GPU waits for: half as many by one call.
                yield from between(torch.cat((a, b)), torch.cat((b, a))).chunk(2)

        shared = is_raft(model)
        prepared = encoded if shared else given
        # Not around the whole generator: at each yield the caller's own settings must hold.
        with torch.autocast(device.type, enabled=False):
            flows = ways(prepared(image1), prepared(image2))
        for _ in range(2):
            with torch.autocast(device.type, enabled=False):
                flow = next(flows)
            yield stretch_flow(stretch_flow(flow, *bound).to(image1.device), h, w)


def estimate_flow(
    model: nn.Module, image1: Tensor, image2: Tensor, iterations: int = ITERATIONS
) -> Tensor:
    """The flow from `image1` to `image2`, both (n,3,h,w) in [-1, 1], as (n,2,h,w) fp32 in pixels.

    Takes any size from 16 px up. For RAFT, sides are resized up to multiples of 8; images with a
    side under 128 px, RAFT's least, are enlarged first, with their aspect kept as long as the long
    side stays within 1024 px. The flow is resized back, each axis with its own ratio, and is on
    image1's device. `model` as for `NeighbourFlow`. Raises InputError.
    """
    return next(NeighbourFlow(model, iterations).both_ways(image1, image2))


def estimate_flows(
    model: nn.Module,
    frames: Tensor,
    iterations: int = ITERATIONS,
    progress: Progress = ignore,
    check_cancelled: Callable[[], None] = ignore,
    longest_side: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Flows between neighbouring frames of a clip: (forward, backward), each (1,2,t-1,h,w) fp32.

    frames (1,3,t,h,w) in [-1, 1]. forward[i] leads from frame i to i+1, backward[i] from i+1 to
    i; both on the frames' device, in pixels. One frame gives two empty flows. Memory grows with
    (h w)^2, as RAFT correlates all positions with each other at 1/8 scale; `longest_side` bounds
    it, as in `NeighbourFlow.both_ways`. A GPU takes as many pairs at once as fit.
    `check_cancelled()` is called before the flows of each direction and may raise;
    `progress(done, total)` after them. Raises InputError.
    """
    if frames.ndim != 5 or frames.shape[:2] != (1, 3) or frames.shape[2] < 1:
        raise InputError(f"flow needs frames as (1, 3, t, h, w), but got {tuple(frames.shape)}.")
    sequence = rearrange(frames, "1 c t h w -> t c h w")
    pairs, (h, w) = len(sequence) - 1, sequence.shape[-2:]
    flows = frames.new_empty((2, pairs, 2, h, w), dtype=torch.float32)
    neighbours = NeighbourFlow(model, iterations)
    device, bound = next(model.parameters()).device, bounded_size(h, w, longest_side)
    most = pairs_at_once(device, *bound)
    for first in range(0, pairs, most):
        last = min(first + most, pairs)
        ends = sequence[first:last], sequence[first + 1 : last + 1]
        ways = neighbours.both_ways(*ends, longest_side)
        for direction in range(2):
            check_cancelled()
            flows[direction, first:last] = next(ways)
            progress(2 * first + (direction + 1) * (last - first), 2 * pairs)
    forward, backward = rearrange(flows, "d t c h w -> d 1 c t h w")
    return forward, backward


def pairs_at_once(device: torch.device, h: int, w: int, room: int | None = None) -> int:
    """Pairs of frames (h, w) that are estimated together; one on a CPU and when sparing memory.

    Several pairs are faster on a GPU: small kernels do not fill it and wait to be launched. They
    take up to half of ``room`` bytes; by default of what is free.
    """
    if room is None and not _one_by_one(device):
        room = memory.free(device)
    if room is None or _one_by_one(device):
        return 1
    h, w = _network_size(h, w)
    # RAFT's correlations and their pyramid, twice; then features, or the built-in derivatives.
    needed = 2 * 4 * 4 // 3 * (h * w // _STRIDE**2) ** 2 + _BYTES_PER_PIXEL * h * w
    return max(1, min(_MOST_PAIRS, room // 2 // needed))


def _one_by_one(device: torch.device) -> bool:
    """Whether pairs, and both ways of a pair, are estimated one after the other."""
    return device.type == "cpu" or memory.spares(memory.Sparing.HALVES)


def stretch_flow(flow: Tensor, h: int, w: int) -> Tensor:
    """A flow (n,2,h0,w0) resized to (h, w), bilinear, each component scaled with its axis."""
    h0, w0 = flow.shape[-2:]
    if (h0, w0) == (h, w):
        return flow
    flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([w / w0, h / h0]).view(1, 2, 1, 1)


def bounded_size(h: int, w: int, longest_side: int | None) -> tuple[int, int]:
    """(h, w) shrunk, aspect kept, until the longer side has at most ``longest_side`` pixels.

    No side is shrunk below 16 px, the least that flow takes. None never shrinks. Raises InputError
    for a longest side under 16 px.
    """
    if longest_side is None or max(h, w) <= longest_side:
        return h, w
    if longest_side < SMALLEST_SIDE:
        raise InputError(
            f"The longest side for flow is {longest_side} px: expected at least {SMALLEST_SIDE}."
        )
    scale = longest_side / max(h, w)
    return (
        max(min(h, SMALLEST_SIDE), round(h * scale)),
        max(min(w, SMALLEST_SIDE), round(w * scale)),
    )


def _shrunk(image: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)


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
    """The least (h, w) that RAFT takes for an image of this size: see estimate_flow."""
    enlarge = max(1.0, _NETWORK_SIDE / min(h, w))

    def side(pixels: int) -> int:
        enlarged = min(pixels * enlarge, max(pixels, _LONGEST_ENLARGED))
        return _STRIDE * math.ceil(max(enlarged, _NETWORK_SIDE) / _STRIDE)

    return side(h), side(w)
