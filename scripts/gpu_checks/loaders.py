"""Every loader, every precision and both kinds of weights, under DynamicVRAM where it is on.

After loading, a small run through the nodes is compared with the core, with the same file in fp32
on the same device. So a weight that was not cast, or is not that of the file, is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import graph
import torch
from generated import det
from torch import Tensor

from bench.measure.compare import relative_difference
from uav_core.flow.builtin import BUILTIN_FLOW, BuiltinFlow
from uav_core.flow.estimate import estimate_flows, load_flow_model
from uav_core.models.vae import LATENT_SCALE
from uav_core.sampling.pipeline import load_unet, load_vae
from uav_core.weights import included

from .inside import dynamic_vram
from .items import CheckFailedError, Item, Values, check_at_most
from .place import Place
from .small import decode_inputs, decoded, sample_inputs, sampled
from .weights import FILES

# Largest allowed difference to fp32, relative to the largest value, by precision of the loaders.
BOUNDS = {"fp32": 1e-2, "fp8_e4m3fn": 0.3, "fp8_e5m2": 0.5}
HALF = 6e-2
"""The bound of all other precisions, as *default* depends on the device."""
ITERATIONS = 2

Get = Callable[[], Path]


def items(place: Place) -> Iterator[Item]:
    """Items: included weights, converted ones, then released files, one precision first."""
    yield Item("DynamicVRAM", state, 0.1)
    load = place.pack.nodes.loaders.load
    marked = {name: name + included.MARK for name in (included.UNET, *VAES, included.TEXT)}

    def unet(title: str, name: str, file: Get, first: float, more: float) -> Iterator[Item]:
        """``first``: seconds of the first item, which may make the file; ``more``: of others."""
        for i, precision in enumerate(load.WEIGHT_DTYPES):
            run = partial(check_unet, place, name, file, precision)
            yield Item(f"U-Net, {title}, {precision}", run, more if i else first)

    def vae(title: str, name: str, file: Get, first: float, more: float) -> Iterator[Item]:
        for i, precision in enumerate(load.VAE_PRECISIONS):
            run = partial(check_vae, place, name, file, precision)
            yield Item(f"VAE, {title}, {precision}", run, more if i else first)

    def made(name: str) -> tuple[str, Get]:
        # Loaders list a file by its path in the folder of its kind.
        return FILES[name].partition("/")[2], partial(place.weights.path, name)

    path = included.path_of
    yield from unet("included", marked[included.UNET], partial(path, included.UNET), 4, 0.7)
    for kind in VAES:
        yield from vae(f"included {kind}", marked[kind], partial(path, kind), 1, 0.7)
    yield Item("text encoder, included", partial(check_text, place, marked[included.TEXT]), 1)
    yield Item("flow, built-in", partial(check_flow, place, BUILTIN_FLOW, None), 1)
    yield from unet(FILES["unet"], *made("unet"), 5, 1.5)
    yield from vae(FILES["vae"], *made("vae"), 2.5, 1)
    text = partial(check_text, place, *made("text_encoder"))
    yield Item(f"text encoder, {FILES['text_encoder']}", text, 6)
    for name in ("flow", "flow.pth"):
        yield Item(f"flow, {FILES[name]}", partial(check_flow, place, *made(name)), 1.5)
    released = [unet(FILES["unet.bin"], *made("unet.bin"), 7, 2.5)]
    released += [vae(FILES[name], *made(name), 2.5, 1) for name in ("vae.bin", "vae_3d.bin")]
    yield from (next(way) for way in released)
    yield from chain(*released)


VAES = (included.VAE_VIDEO, included.VAE_3D)


def state() -> Values:
    """Report whether DynamicVRAM is on; this item never fails."""
    return {"DynamicVRAM": dynamic_vram()}


def bound(place: Place, precision: str) -> float:
    """Largest allowed difference for a precision of the loaders."""
    exact = BOUNDS.get(precision, HALF)
    return exact if precision == "fp32" else exact * place.slack


@cache
def exact_latents(place: Place, path: Path) -> Tensor:
    """Latents by the core in fp32."""
    return sampled(load_unet(path, device=str(place.device)), place.small_size, place.device)


@cache
def exact_frames(place: Place, path: Path) -> Tensor:
    """Frames by the core in fp32."""
    return decoded(load_vae(path, device=str(place.device)), place.small_size, place.device)


@torch.inference_mode()
def check_unet(place: Place, name: str, file: Get, precision: str) -> Values:
    """Compare two steps through ComfyUI's guider and sampler with the core."""
    path = file()
    patcher = place.pack.nodes.loaders.load.LoadUNet.execute(name, precision).result[0]
    case = sample_inputs(patcher.model.params.context_dim, place.small_size)
    got = graph.sample_case(place.pack, patcher, case).float().cpu() * LATENT_SCALE
    exact = exact_latents(place, path)
    return {
        **check_at_most("difference", relative_difference(got, exact), bound(place, precision)),
        "weights": str(patcher.model_dtype()).removeprefix("torch."),
        "patcher": type(patcher).__name__,
    }


@torch.inference_mode()
def check_vae(place: Place, name: str, file: Get, precision: str) -> Values:
    """Compare one decoded group with the core."""
    path = file()
    vae = place.pack.nodes.loaders.load.LoadVAE.execute(name, precision).result[0]
    latents, frames = decode_inputs(place.small_size)
    images = vae.decode_video(latents / LATENT_SCALE, frames)
    got = images.float().cpu().movedim(-1, 0)[None] * 2 - 1
    exact = exact_frames(place, path)
    return {
        **check_at_most("difference", relative_difference(got, exact), bound(place, precision)),
        "patcher": type(vae.patcher).__name__,
    }


@torch.inference_mode()
def check_text(place: Place, name: str, file: Get | None = None) -> Values:
    """Two texts, one of which names flaws, must differ."""
    if file is not None:
        file()
    clip = place.pack.nodes.loaders.load.LoadTextEncoder.execute(name).result[0]
    texts = ("a rabbit in a meadow", "blur, worst quality")
    found = [clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0] for text in texts]
    for tensor in found:
        if tensor.ndim != 3 or len(tensor) != 1 or not tensor.isfinite().all():
            raise CheckFailedError(
                f"an encoded text has shape {tuple(tensor.shape)}, expected finite values of "
                "shape (1, tokens, width)"
            )
    difference = relative_difference(*found)
    if difference == 0:
        raise CheckFailedError("two different texts have the same embedding")
    return {"width": found[0].shape[-1], "the texts differ by": difference}


@torch.inference_mode()
def check_flow(place: Place, name: str, file: Get | None) -> Values:
    """Compare the flow of three frames, both ways, with the core on a CPU."""
    model: Any = BuiltinFlow() if file is None else load_flow_model(file())
    images = det("flow", (3, 128, 136, 3)).mul(0.2).add(0.5).clamp(0, 1)
    flow_model = place.pack.nodes.loaders.load.LoadFlowModel.execute(name).result[0]
    node = place.pack.nodes.sampling.propagate.Propagation
    plan = node.execute(flow_model, images, "last 1", 0.5, 0.001, 0.05, ITERATIONS).result[0]
    got = torch.cat(plan.estimate()).float().cpu()
    exact = torch.cat(estimate_flows(model, plan.frames.cpu(), ITERATIONS))
    return check_at_most("difference", relative_difference(got, exact), HALF)
