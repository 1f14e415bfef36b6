"""Precision of the device.

The golden data was made with the reference implementation, for tiny networks. The included weights
and those of the released size are compared with the same run on a CPU in fp32. Differences are the
largest absolute ones, divided by the largest value (at least 1). The bounds are about three times
the differences on an H100 (docs/gpu_check.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from unittest import mock

import tiny
import torch
from generated import det, generate, key_shapes
from golden_cases import DECODE, GOLDEN, PIPELINE, UNET, decode_inputs, pipeline_inputs, unet_inputs
from torch import Tensor

from bench.measure.compare import relative_difference
from uav_core import propagate
from uav_core.devices import norms
from uav_core.flow.estimate import estimate_flow, load_flow_model
from uav_core.models.unet import TemporalUNet
from uav_core.sampling.pipeline import load_unet, load_vae, upscale
from uav_core.weights import included

from .items import Item, NotPossibleError, Values, check_at_most
from .place import Place
from .small import Size, decoded, in_precision, moved, pass_inputs


@dataclass(frozen=True)
class Precision:
    """A precision of computing, and its largest allowed differences."""

    name: str
    dtype: torch.dtype
    tf32: bool
    """Whether fp32 convolutions use TF32, PyTorch's default on NVIDIA GPUs."""
    network: float
    """Bound for one pass of a network."""
    run: float
    """Bound for a run of several steps."""


FP32 = Precision("fp32", torch.float32, False, 1e-4, 3e-4)
FP16 = Precision("fp16", torch.float16, True, 3e-2, 6e-2)
PRECISIONS = (
    FP32,
    Precision("TF32", torch.float32, True, 5e-3, 1e-2),
    FP16,
    Precision("bf16", torch.bfloat16, True, 6e-2, 1.2e-1),
)
DIFFERENCE = "difference"
DECODED = 6.0
"""Largest allowed difference of frames, as a multiple of that of latents.

The generated decoder amplifies differences: TF32 rounding, imitated on a CPU, by four.
"""


def items(place: Place) -> Iterator[Item]:
    """Items of the golden data, then of the included weights, then of the released size."""
    for p in PRECISIONS:
        yield Item(f"U-Net, golden data, {p.name}", partial(golden_unet, place, p), 0.7)
        yield Item(f"VAEs, golden data, {p.name}", partial(golden_vaes, place, p), 0.7)
    for p in (FP32, FP16):
        name = f"U-Net, golden data, {p.name}, without Triton"
        yield Item(name, partial(golden_unet, place, p, kernels=False), 0.5)
    for p in PRECISIONS[:2]:
        yield Item(f"whole runs, golden data, {p.name}", partial(golden_runs, place, p), 3)
        yield Item(f"RAFT, golden data, {p.name}", partial(golden_raft, place, p), 0.7)
    yield Item("propagation, golden data", partial(golden_propagation, place), 0.5)
    kinds = {
        "included weights": (
            partial(included.path_of, included.UNET),
            partial(included.path_of, included.VAE_VIDEO),
            1.5,
            0.7,
        ),
        "released size": (*(partial(place.weights.path, n) for n in ("unet", "vae")), 4, 1.2),
    }
    for title, (unet, vae, first, more) in kinds.items():
        for p in PRECISIONS:
            name = f"{title}, to a CPU, {p.name}"
            estimate = first if p is FP32 else more  # the first computes on the CPU as well
            yield Item(f"U-Net, {name}", partial(pass_to_cpu, place, p, unet), estimate)
            yield Item(f"VAE, {name}", partial(decode_to_cpu, place, p, vae), estimate)


def check_can(place: Place, precision: Precision) -> None:
    """Raise NotPossibleError for precisions that are useless on a CPU."""
    if place.tiny and precision.tf32 and precision.dtype != torch.bfloat16:
        raise NotPossibleError("a CPU has no TF32, and computes fp16 many times slower than fp32")


@contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Context in which TF32 is on or off by the precision, without gradients."""
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    # Matrix products stay in fp32, PyTorch's default.
    cudnn.allow_tf32, matmul.allow_tf32 = precision.tf32, False
    try:
        with torch.inference_mode():
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def largest(pairs: Iterator[tuple[Tensor, Tensor]]) -> float:
    """The largest difference between results and expected values."""
    return max(relative_difference(got.float().cpu(), expected) for got, expected in pairs)


def golden_unet(place: Place, p: Precision, kernels: bool = True) -> Values:
    """Compare the tiny U-Net with golden data; without ``kernels`` as where Triton is missing."""
    check_can(place, p)
    fewer = nullcontext() if kernels else mock.patch.object(norms, "has_kernels", lambda _: False)
    with computing(p), fewer:
        unet = load_unet(tiny.unet_weights(), dtype=p.dtype, device=str(place.device))

        def results() -> Iterator[tuple[Tensor, Tensor]]:
            for case in UNET:
                yield unet(*in_precision(unet_inputs(case), unet)), GOLDEN[case]

        return check_at_most(DIFFERENCE, largest(results()), p.network)


def golden_vaes(place: Place, p: Precision) -> Values:
    """Compare the tiny VAEs' decoders with golden data."""
    check_can(place, p)
    with computing(p):
        vaes = {
            kind: load_vae(tiny.vae_weights(kind), dtype=p.dtype, device=str(place.device))
            for kind in tiny.VAES
        }

        def results() -> Iterator[tuple[Tensor, Tensor]]:
            for case in DECODE:
                kind, inputs = decode_inputs(case)
                yield vaes[kind].decode(*moved(inputs, place.device)), GOLDEN[case]

        return check_at_most(DIFFERENCE, largest(results()), p.network)


def golden_runs(place: Place, p: Precision) -> Values:
    """Compare whole runs with golden data: several steps, guidance, propagation, decoding."""
    check_can(place, p)
    device = str(place.device)
    with computing(p):
        unet = load_unet(tiny.unet_weights(), device=device)
        vae = load_vae(tiny.vae_weights("vae_3d"), device=device)

        made = {n: upscale(unet, vae, **moved(pipeline_inputs(n), place.device)) for n in PIPELINE}
        latents = ((made[n][0], GOLDEN[f"{n}/latents"]) for n in PIPELINE)
        with_frames = [n for n in PIPELINE if f"{n}/frames_out" in GOLDEN]
        frames = ((made[n][1], GOLDEN[f"{n}/frames_out"]) for n in with_frames)
        found = largest(latents), largest(frames)
        check_at_most("difference of frames", found[1], DECODED * p.run)
        return {**check_at_most(DIFFERENCE, found[0], p.run), "of frames": found[1]}


def golden_raft(place: Place, p: Precision) -> Values:
    """Compare RAFT with golden data, a flow of several pixels."""
    check_can(place, p)
    shapes = {key.removeprefix("module."): s for key, s in key_shapes("raft_things").items()}
    with computing(p):
        model = load_flow_model(generate("raft.", shapes)).to(place.device)
        images = (GOLDEN[f"raft/image{i}"].to(place.device) for i in (1, 2))
        flow = estimate_flow(model, *images, iterations=4)
        return check_at_most(
            DIFFERENCE, relative_difference(flow.cpu(), GOLDEN["raft/flow_iters4"]), p.run
        )


def golden_propagation(place: Place) -> Values:
    """Compare both sweeps of propagation along given flows with golden data."""
    name = "propagate/6x12x16"
    with computing(FP32):
        forward, backward = (GOLDEN[f"{name}/flow_{way}"] for way in ("forward", "backward"))
        x0 = det(f"{name}/x0", (1, 4, 6, 12, 16))
        out = propagate(*moved((x0, forward, backward), place.device))
        return check_at_most(
            DIFFERENCE, relative_difference(out.cpu(), GOLDEN[f"{name}/out"]), FP32.network
        )


@cache
def pass_on_cpu(path: Path, size: Size) -> Tensor:
    """Result of one U-Net pass on the CPU in fp32."""
    with computing(FP32):
        return passed(load_unet(path), size)


@cache
def decoded_on_cpu(path: Path, size: Size) -> Tensor:
    """Frames of the small clip, decoded on the CPU in fp32."""
    with computing(FP32):
        return decoded(load_vae(path), size, torch.device("cpu"))


def passed(unet: TemporalUNet, size: Size) -> Tensor:
    """Result of one pass of ``unet``, as fp32 on the CPU."""
    inputs = in_precision(pass_inputs(unet.params.context_dim, size), unet)
    return unet(*inputs).float().cpu()


def pass_to_cpu(place: Place, p: Precision, file: Callable[[], Path]) -> Values:
    """Compare one U-Net pass on a small clip with the CPU."""
    check_can(place, p)
    exact = pass_on_cpu(file(), place.small_size)
    with computing(p):
        unet = load_unet(file(), dtype=p.dtype, device=str(place.device))
        got = passed(unet, place.small_size)
    limit = p.network if p is FP32 else p.network * place.slack
    return check_at_most(DIFFERENCE, relative_difference(got, exact), limit)


def decode_to_cpu(place: Place, p: Precision, file: Callable[[], Path]) -> Values:
    """Compare decoding a small clip with the CPU."""
    check_can(place, p)
    exact = decoded_on_cpu(file(), place.small_size)
    with computing(p):
        vae = load_vae(file(), dtype=p.dtype, device=str(place.device))
        got = decoded(vae, place.small_size, place.device)
    limit = p.network if p is FP32 else p.network * place.slack
    return check_at_most(DIFFERENCE, relative_difference(got, exact), limit)
