"""Optical flow between neighbouring frames with RAFT (Teed & Deng 2020, arXiv 2003.12039).

The network is torchvision's `raft_large`; weights come in its own names or in those of the
authors' `raft-things.pth`. A flow is (dx, dy) in pixels: what is at p in the first image is at
p + flow(p) in the second.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .checkpoints import Kind, load_checkpoint, strict_load
from .errors import CheckpointMismatchError, InputError, MissingPackageError

ITERATIONS = 20
SMALLEST_SIDE = 16

# The network works at 1/8 and pools its correlations three times more: a side under 128 would
# leave the last level one cell wide, where sampling divides by zero.
_STRIDE = 8
_NETWORK_SIDE = 128
# How far the long side of a small, very oblong image may grow to keep the aspect.
_LONGEST_ENLARGED = 1024

_RAFT_RENAMES = (
    (re.compile(r"^fnet\."), "feature_encoder."),
    (re.compile(r"^cnet\."), "context_encoder."),
    (re.compile(r"^(\w+_encoder)\.conv1\."), r"\1.convnormrelu.0."),
    (re.compile(r"^(\w+_encoder)\.norm1\."), r"\1.convnormrelu.1."),
    (re.compile(r"^(\w+_encoder)\.conv2\."), r"\1.conv."),
    (re.compile(r"(\.layer\d\.\d)\.conv(\d)\."), r"\1.convnormrelu\2.0."),
    (re.compile(r"(\.layer\d\.\d)\.norm3\."), r"\1.downsample.1."),
    (re.compile(r"(\.layer\d\.\d)\.norm(\d)\."), r"\1.convnormrelu\2.1."),
    (re.compile(r"^update_block\.encoder\.conv\."), "update_block.motion_encoder.conv.0."),
    (re.compile(r"^update_block\.encoder\.convc(\d)\."),
     r"update_block.motion_encoder.convcorr\1.0."),
    (re.compile(r"^update_block\.encoder\.convf(\d)\."),
     r"update_block.motion_encoder.convflow\1.0."),
    (re.compile(r"^update_block\.gru\.conv([zrq])(\d)\."),
     r"update_block.recurrent_block.convgru\2.conv\1."),
    (re.compile(r"^update_block\.mask\.0\."), "mask_predictor.convrelu.0."),
    (re.compile(r"^update_block\.mask\.2\."), "mask_predictor.conv."),
)  # fmt: skip


def raft_to_torchvision(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`raft-things` weights (without `module.`) under torchvision's `raft_large` names.

    The original registers a block's shortcut norm twice, as `norm3` and as `downsample.1`;
    where a file has both, `downsample.1` is the one that took effect on loading. Batch counters
    missing from old files are added. Raises CheckpointMismatchError on two keys for one place.
    """
    result: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in state_dict.items():
        if ".norm3." in key and key.replace(".norm3.", ".downsample.1.") in state_dict:
            continue
        name = key
        for pattern, replacement in _RAFT_RENAMES:
            name = pattern.sub(replacement, name)
        if name in origin:
            raise CheckpointMismatchError(
                f"RAFT weights hold both '{origin[name]}' and '{key}', which mean the same layer: "
                "expected one layout, raft-things or torchvision. Use an unmixed file."
            )
        result[name], origin[name] = tensor, key
    for key in list(result):
        if key.endswith(".running_var"):
            counter = key.removesuffix("running_var") + "num_batches_tracked"
            result.setdefault(counter, torch.zeros((), dtype=torch.int64))
    return result


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


@torch.no_grad()
def estimate_flow(
    model: nn.Module, image1: Tensor, image2: Tensor, iterations: int = ITERATIONS
) -> Tensor:
    """The flow from `image1` to `image2`, both (n,3,h,w) in [-1, 1], as (n,2,h,w) fp32 in pixels.

    Any size from 16 px up. Sides that are not multiples of 8 are resized up to one; images
    with a side under 128 px, RAFT's least, are enlarged first, with their aspect kept as far
    as the long side stays within 1024 px. The flow is resized back, each axis with its own
    ratio. `model` is torchvision's RAFT on any device and in any dtype; it computes in fp32
    there, and the flow comes back to image1's device. A model whose `any_size` is true, such as
    `uav_core.builtin_flow.BuiltinFlow`, gets the images as they are. Raises InputError.
    """
    _check_images(image1, image2, iterations)
    first = next(model.parameters())
    h, w = image1.shape[-2:]
    network_h, network_w = (h, w) if getattr(model, "any_size", False) else _network_size(h, w)
    images = [x.to(first.device, torch.float32) for x in (image1, image2)]
    if (network_h, network_w) != (h, w):
        size = (network_h, network_w)
        images = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in images]
    with torch.autocast(first.device.type, enabled=False):
        flow = _run_in_fp32(model, images, iterations)
    return stretch_flow(flow, h, w).to(image1.device)


def estimate_flows(
    model: nn.Module,
    frames: Tensor,
    iterations: int = ITERATIONS,
    pairs_per_batch: int = 1,
    progress: Callable[[int, int], None] | None = None,
    check_cancelled: Callable[[], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Flows between neighbouring frames of a clip: (forward, backward), each (1,2,t-1,h,w) fp32.

    frames (1,3,t,h,w) in [-1, 1]. forward[i] leads from frame i to i+1, backward[i] from i+1 to
    i; both on the frames' device, in pixels. One frame gives two empty flows. Memory grows with
    `pairs_per_batch` and with (h w)^2: the network correlates all with all at 1/8 scale.
    `check_cancelled()` is called before every batch and may raise; `progress(done, total)` after
    it counts frame pairs, both directions. Raises InputError.
    """
    if frames.ndim != 5 or frames.shape[:2] != (1, 3) or frames.shape[2] < 1:
        raise InputError(f"flow needs frames as (1, 3, t, h, w), but got {tuple(frames.shape)}.")
    if pairs_per_batch < 1:
        raise InputError(f"pairs_per_batch is {pairs_per_batch}, but must be 1 or more.")
    sequence = rearrange(frames, "1 c t h w -> t c h w")
    pairs, (h, w) = len(sequence) - 1, sequence.shape[-2:]
    flows = frames.new_empty((2, pairs, 2, h, w), dtype=torch.float32)
    done = 0
    try:
        for start in range(0, pairs, pairs_per_batch):
            earlier = sequence[:-1][start : start + pairs_per_batch]
            later = sequence[1:][start : start + pairs_per_batch]
            for direction, (a, b) in enumerate(((earlier, later), (later, earlier))):
                if check_cancelled is not None:
                    check_cancelled()
                flows[direction, start : start + len(a)] = estimate_flow(model, a, b, iterations)
                done += len(a)
                if progress is not None:
                    progress(done, 2 * pairs)
    finally:
        _drop_correlations(model)
    forward, backward = rearrange(flows, "d t c h w -> d 1 c t h w")
    return forward, backward


def stretch_flow(flow: Tensor, h: int, w: int) -> Tensor:
    """A flow (n,2,h0,w0) at another size, bilinear, each component scaled with its own axis."""
    h0, w0 = flow.shape[-2:]
    if (h0, w0) == (h, w):
        return flow
    flow = F.interpolate(flow, (h, w), mode="bilinear", align_corners=False)
    return flow * flow.new_tensor([w / w0, h / h0]).view(1, 2, 1, 1)


def resize_flow(flow: Tensor, h: int, w: int) -> Tensor:
    """A flow (n,2,h0,w0) or (b,2,t,h0,w0) at another size, by area, its values scaled with it.

    Both components are scaled by the WIDTH ratio w / w0: what the released code does at this
    place, the same as per-axis scaling while the aspect is kept. Raises InputError.
    """
    if flow.ndim not in (4, 5) or flow.shape[1] != 2:
        raise InputError(
            f"a flow is (n, 2, h, w) or (b, 2, t, h, w), but this one is {tuple(flow.shape)}."
        )
    h0, w0 = flow.shape[-2:]
    if (h0, w0) == (h, w):
        return flow
    if flow.numel() == 0:  # a clip of one frame
        return flow.new_empty((*flow.shape[:-2], h, w))
    flat = rearrange(flow, "b c t h w -> (b t) c h w") if flow.ndim == 5 else flow
    flat = F.interpolate(flat, (h, w), mode="area") * (w / w0)
    return rearrange(flat, "(b t) c h w -> b c t h w", b=len(flow)) if flow.ndim == 5 else flat


def _check_images(image1: Tensor, image2: Tensor, iterations: int) -> None:
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
    if iterations < 1:
        raise InputError(f"flow needs 1 iteration or more, but got {iterations}.")


def _network_size(h: int, w: int) -> tuple[int, int]:
    """The least h, w the network takes for an image of that size: see estimate_flow."""
    enlarge = max(1.0, _NETWORK_SIDE / min(h, w))

    def side(pixels: int) -> int:
        enlarged = min(pixels * enlarge, max(pixels, _LONGEST_ENLARGED))
        return _STRIDE * math.ceil(max(enlarged, _NETWORK_SIDE) / _STRIDE)

    return side(h), side(w)


def _run_in_fp32(model: nn.Module, images: list[Tensor], iterations: int) -> Tensor:
    """The network's last prediction; weights kept in another dtype are cast for this call."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    floats = {key: x.float() for key, x in tensors.items() if x.is_floating_point()}
    if all(floats[key] is tensors[key] for key in floats):
        return model(*images, num_flow_updates=iterations)[-1]
    options = {"num_flow_updates": iterations}
    return torch.func.functional_call(model, floats, tuple(images), options)[-1]


def _drop_correlations(model: nn.Module) -> None:
    """Let go of the last pair's correlations, which torchvision keeps: gigabytes at 1080p."""
    correlation = getattr(model, "corr_block", None)
    if correlation is not None:
        correlation.corr_pyramid = []
