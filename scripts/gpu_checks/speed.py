"""Times and peak memory at one size: 320x180 to 1280x720, tiny on a CPU.

Peaks are those of PyTorch's allocator above its use before; they do not include the weights that
ComfyUI streams under DynamicVRAM. No item fails for being slow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.cases.case import TINY_VAE, generated, unet_inputs, vae_inputs
from bench.cases.flow import drifting_clip
from bench.measure.compare import relative_difference, seconds, synchronize
from scripts.workflows import presets
from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import ITERATIONS, estimate_flows, load_flow_model
from uav_core.models.unet import TemporalUNet, UNetParams
from uav_core.models.vae import TemporalVAE, VAEParams
from uav_core.sampling import presets as quality_presets
from uav_core.sampling.pipeline import load_vae
from uav_core.sampling.segments import plan_groups, plan_segments
from uav_core.weights import included

from .items import CheckFailedError, Item, NotPossibleError, Values
from .place import Place
from .weights import FEW as FEW_LAYERS

SIZE, FRAMES = (180, 320), 33
TINY_SIZE, TINY_FRAMES = (16, 24), 3
TIMES = 2
SEED = 5
GIB = 2**30
TEXTS = ("best quality, extremely detailed", "blur, worst quality")
FEW = 2
"""Steps of the shortened run at the released size."""
FASTEST = "fastest s"


def items(place: Place) -> Iterator[Item]:
    """Items: the parts and the included weights first, the longest run last."""
    parts: dict[str, Values] = {}

    def part(name: str, run: Callable[[], Values], estimate: float) -> Item:
        """An item whose result is kept for ``put_together``."""

        def kept() -> Values:
            parts[name] = run()
            return parts[name]

        return Item(name, kept, estimate)

    yield part(PASS, partial(unet_pass, place), 5)
    yield part(DECODE, partial(vae_decode, place), 6)
    yield part(RAFT, partial(raft_flow, place), 5)
    yield Item("whole run, included weights", partial(whole_run, place, False, None), 17)
    yield Item("whole run, released size, put together", partial(put_together, place, parts), 0.1)
    yield Item("flow, built-in", partial(builtin_flow, place), 11)
    yield Item(f"whole run, released size, {FEW} steps", partial(whole_run, place, True, FEW), 35)
    if not place.tiny:  # on a CPU it would show no more than the item above
        whole = partial(whole_run, place, True, None)
        yield Item("whole run, released size, all steps", whole, 175)


PASS, DECODE = "U-Net pass, 2 x 8 frames, fp16", "decode, 3 frames, default precision"
RAFT = "flow, RAFT"


def network_size(place: Place) -> tuple[int, int]:
    """Height and width of the input of one network."""
    return place.small_size[1:] if place.tiny else SIZE


def clip(place: Place) -> Tensor:
    """A clip (1, 3, t, h, w) in [-1, 1] of a picture that moves by 1.5 pixels per frame."""
    h, w = TINY_SIZE if place.tiny else SIZE
    frames = TINY_FRAMES if place.tiny else FRAMES
    return drifting_clip(frames, max(h, w), torch.device("cpu"))[..., :h, :w].contiguous()


def timed(place: Place, call: Callable[[], object], times: int = TIMES) -> Values:
    """Time of a first call and its peak memory, and the fastest of ``times`` further calls."""
    cuda = place.device.type == "cuda"
    peaks = {}
    if cuda:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    first = seconds(call, place.device)
    if cuda:
        peaks["peak GiB"] = (torch.cuda.max_memory_allocated() - before) / GIB
        peaks["reserved GiB"] = torch.cuda.max_memory_reserved() / GIB
    if place.tiny:
        times = min(times, 1)
    fastest = min([first, *(seconds(call, place.device) for _ in range(times))])
    return {FASTEST: fastest, "first s": first, **peaks}


def check_finite(result: Tensor) -> None:
    """Raise CheckFailedError for infinities and NaN."""
    if not result.isfinite().all():
        raise CheckFailedError("the result is not finite")


@torch.inference_mode()
def unet_pass(place: Place) -> Values:
    """A U-Net pass of the core with both texts; in fp32 on a CPU."""
    dtype = torch.float32 if place.tiny else torch.float16
    params = FEW_LAYERS if place.tiny else UNetParams()
    network = generated(TemporalUNet(params, dtype=dtype, device="meta"), place.device)
    inputs = [
        x.to(dtype) if x.is_floating_point() else x
        for x in unet_inputs(params, network_size(place), place.device)
    ]
    check_finite(network(*inputs))
    name = str(dtype).removeprefix("torch.")
    return {**timed(place, lambda: network(*inputs)), "precision": name}


@torch.inference_mode()
def vae_decode(place: Place) -> Values:
    """Decoding a group of the reference's length by the core, in the default precision and fp32."""
    name = included.VAE_VIDEO + included.MARK
    dtype = place.pack.nodes.loaders.load.LoadVAE.execute(name, "default").result[0].vae_dtype
    params = TINY_VAE if place.tiny else VAEParams()
    network = generated(TemporalVAE(params, device="meta"), place.device)
    inputs = vae_inputs(params, network_size(place), place.device)
    exact = network.decode(*inputs).cpu()
    check_finite(exact)
    fp32 = timed(place, lambda: network.decode(*inputs))
    network = load_vae(network.state_dict(), dtype=dtype, device=str(place.device))
    got = network.decode(*inputs).float().cpu()
    return {
        **timed(place, lambda: network.decode(*inputs)),
        "precision": str(dtype).removeprefix("torch."),
        "difference to fp32": relative_difference(got, exact),
        **{f"fp32: {name}": value for name, value in fp32.items()},
    }


@torch.inference_mode()
def raft_flow(place: Place) -> Values:
    """RAFT flow of all neighbouring frames of the clip, both ways."""
    model = load_flow_model(place.weights.path("flow")).to(place.device)
    return flow(place, model)


@torch.inference_mode()
def builtin_flow(place: Place) -> Values:
    """Built-in flow of all neighbouring frames of the clip, both ways."""
    return flow(place, BuiltinFlow().to(place.device))


def flow(place: Place, model: torch.nn.Module) -> Values:
    """Time the flow of the clip, after a first pair that loads kernels."""
    frames = clip(place).to(place.device)
    iterations = 2 if place.tiny else ITERATIONS
    estimate_flows(model, frames[:, :, :2], iterations)
    result = {}

    def call() -> None:
        result["flows"] = torch.cat(estimate_flows(model, frames, iterations))

    values = timed(place, call, times=0)
    check_finite(result["flows"])
    return values


def put_together(place: Place, parts: dict[str, Values]) -> Values:
    """Least time of a run with the workflow's steps: the sum of the times of its parts."""
    missing = [name for name in (PASS, DECODE, RAFT) if name not in parts]
    if missing:
        raise NotPossibleError(f"not measured: {', '.join(missing)}")
    settings = quality_presets.settings(quality_presets.AUTHORS)
    frames = TINY_FRAMES if place.tiny else FRAMES
    passes = len(plan_segments(frames)) * settings["steps"]
    groups = len(plan_groups(frames))
    taken = {
        "flow s": parts[RAFT][FASTEST],
        "sampling s": passes * parts[PASS][FASTEST],
        "decoding s": groups * parts[DECODE][FASTEST],
    }
    return {
        "steps": settings["steps"],
        "all s": sum(taken.values()),
        **taken,
        "how": f"{passes} passes, {groups} groups, the flow",
    }


@torch.inference_mode()
def whole_run(place: Place, authors: bool, steps: int | None) -> Values:
    """Run the nodes of the shipped workflow; ``steps`` replaces its own number of steps."""
    run = Run(place, authors, steps)
    return run.values()


class Run:
    """A run of the nodes on one clip."""

    def __init__(self, place: Place, authors: bool, steps: int | None) -> None:
        self.place, self.nodes = place, place.pack.nodes
        kind = quality_presets.AUTHORS if authors else quality_presets.INCLUDED
        self.preset: dict[str, dict[str, Any]] = presets.AUTHORS if authors else presets.INCLUDED
        self.settings = dict(quality_presets.settings(kind))
        if steps is not None and steps < self.settings["steps"]:
            self.settings |= {"steps": steps, "propagation_steps": "last 1"}
        if authors:
            place.weights.lay_authors()
        self.images = clip(place)[0].movedim(0, -1) / 2 + 0.5
        self.parts: dict[str, float] = {}

    def values(self) -> Values:
        """Seconds of each part and in total, and the peak memory."""
        cuda = self.place.device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        plan = self.part("loading and text s", self.prepared)
        self.part("flow s", plan["propagation"].estimate)
        latent = self.part("sampling s", lambda: self.sampled(plan))
        images = self.part("decoding s", lambda: self.decoded(plan, latent))
        check_finite(images)
        peaks = {}
        if cuda:
            peaks["peak GiB"] = torch.cuda.max_memory_allocated() / GIB
            peaks["reserved GiB"] = torch.cuda.max_memory_reserved() / GIB
        step = self.parts["sampling s"] / self.settings["steps"]
        return {
            "steps": self.settings["steps"],
            "all s": sum(self.parts.values()),
            **self.parts,
            "sampling step s": step,
            **peaks,
            "size": "x".join(map(str, images.shape)),
        }

    def part(self, name: str, call: Callable[[], Any]) -> Any:
        """Run a part and record its time."""
        synchronize(self.place.device)
        start = time.perf_counter()
        result = call()
        synchronize(self.place.device)
        self.parts[name] = time.perf_counter() - start
        return result

    def chosen(self, node: str) -> Any:
        """The value of a loader in the workflow."""
        (value,) = self.preset[node].values()
        return value

    def prepared(self) -> dict[str, Any]:
        """The inputs of the sampler, and the VAE."""
        load = self.nodes.loaders.load
        unet = load.LoadUNet.execute(self.chosen("UpscaleAVideoUNetLoader"), "default").result[0]
        vae = load.LoadVAE.execute(self.chosen("UpscaleAVideoVAELoader"), "default").result[0]
        flow = load.LoadFlowModel.execute(self.chosen("UpscaleAVideoFlowLoader")).result[0]
        name = self.chosen("UpscaleAVideoTextEncoderLoader")
        clip = load.LoadTextEncoder.execute(name).result[0]
        texts = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in TEXTS]
        positive, negative, latent = self.nodes.sampling.condition.LowResConditioning.execute(
            self.images, self.settings["noise_level"], SEED, *texts
        ).result
        propagation = self.nodes.sampling.propagate.Propagation.execute(
            flow,
            self.images,
            self.settings["propagation_steps"],
            self.settings["propagation_strength"],
            0.001,
            0.05,
            2 if self.place.tiny else ITERATIONS,
        ).result[0]
        return {
            "model": unet,
            "vae": vae,
            "positive": positive,
            "negative": negative,
            "latent": latent,
            "propagation": propagation,
        }

    def sampled(self, plan: dict[str, Any]) -> dict[str, Any]:
        """The sampled latent."""
        return self.nodes.sampling.sample.SegmentSampler.execute(
            plan["model"],
            plan["positive"],
            plan["negative"],
            plan["latent"],
            self.settings["steps"],
            self.settings["guidance"],
            SEED,
            8,
            2,
            propagation=plan["propagation"],
        ).result[0]

    def decoded(self, plan: dict[str, Any], latent: dict[str, Any]) -> Tensor:
        """The decoded IMAGE (t, 4h, 4w, 3)."""
        decode = self.preset["UpscaleAVideoVAEDecode"]
        return self.nodes.sampling.decode.VAEDecode.execute(
            latent,
            plan["vae"],
            self.images,
            1.0,
            decode["frames_per_group"],
            decode["color_fix"],
        ).result[0]
