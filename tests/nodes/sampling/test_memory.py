"""Memory runs out in the nodes for clips: they go on with less at once, and say so."""

from __future__ import annotations

from types import SimpleNamespace

import graph
import pytest
import torch

from bench.measure.memory import measure_peak
from uav_core.devices.memory import Sparing

WIDE = 80
"""Pixels of a frame that has one rung of tiles."""


@pytest.fixture
def said(pack, monkeypatch):
    """What is written on nodes."""
    texts: list[str] = []
    for room in ("sampling.sample", "sampling.decode", "look.preview_crop"):
        module = pack.nodes
        for name in room.split("."):
            module = getattr(module, name)
        monkeypatch.setattr(module, "show_status", lambda _, text: texts.append(text))
    return texts


class Short:
    """Put around a function: runs out of memory while less is spared, or more than so much seen."""

    def __init__(self, pack, function, level=Sparing.NONE, most=10**9, size=lambda *args: 0):
        # The pack's own copy of the module, as ComfyUI loads it under a name of its own.
        self.spares = pack.uav_core.devices.memory.spares
        self.function, self.level, self.most, self.size = function, level, most, size
        self.failed = self.done = 0

    def __call__(self, *args, **kwargs):
        if not self.spares(self.level) or self.size(*args) > self.most:
            self.failed += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.done += 1
        return self.function(*args, **kwargs)


@pytest.fixture
def shorten(pack, monkeypatch):
    """``shorten(network, method, ...)``: the method as a ``Short`` one."""

    def shorten(network, name: str, **how) -> Short:
        short = Short(pack, getattr(network, name), **how)
        monkeypatch.setattr(network, name, short)
        return short

    return shorten


def wide(*args) -> int:
    return args[0].shape[-1]


def long(*args) -> int:
    return args[0].shape[2]


def one_size(t: int, w: int):
    return graph.frames(t, graph.H, w)


def sampled(pack, unet, w=graph.W, **options):
    return graph.sample(pack, unet, one_size(3, w), steps=2, segment_length=2, overlap=1, **options)


@pytest.mark.parametrize("level", [Sparing.HALVES, Sparing.STRIPES])
def test_a_pass_goes_on_sparing_with_the_same_bits(pack, unet, said, shorten, level):
    whole = sampled(pack, unet)
    network = unet.model.diffusion_model
    short = shorten(network, "_evaluate", level=level)
    assert torch.equal(sampled(pack, unet), whole)
    assert short.failed == level, "once a rung, and never again in the run"
    steps = [line for line in said[-1].splitlines() if line.startswith("Memory ran out")]
    assert len(steps) == level and "sampling 2 frames of 24x16" in steps[0]
    assert "Tried to allocate 2.00 GiB" in steps[0]
    # The next run tries anew.
    sampled(pack, unet)
    assert short.failed == 2 * level


def test_a_pass_goes_on_in_tiles(pack, unet, said, shorten):
    network = unet.model.diffusion_model
    tiled = sampled(pack, pack.nodes.sampling.tiles.with_tiles(unet, 64), WIDE)
    shorten(network, "_evaluate", most=64, size=wide)
    assert torch.equal(sampled(pack, unet, WIDE), tiled)
    assert "tiles of 64x64 px with an overlap of 16" in said[-1]


def test_tiles_that_were_asked_for_become_smaller(pack, unet, said, shorten):
    with_tiles = pack.nodes.sampling.tiles.with_tiles
    small = sampled(pack, with_tiles(unet, 64), WIDE)
    network = unet.model.diffusion_model
    short = shorten(network, "_evaluate", most=64, size=wide)
    assert torch.equal(sampled(pack, with_tiles(unet, 72), WIDE), small)
    assert short.failed == 3  # with tiles of 72: as they are, half by half, in stripes


def test_any_sampler_steps_down(pack, unet, shorten):
    """With the parts of the sampler, in ComfyUI's own nodes."""
    import comfy.samplers

    positive, negative, latent = graph.conditioned(pack, one_size(3, graph.W))
    sample = pack.nodes.sampling.sample
    model = sample.Segments.execute(unet, 2, 1).result[0]

    def run():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(6.0)
        noise = torch.zeros_like(latent["samples"])
        sigmas = sample.Sigmas.execute(2, model).result[0]
        return guider.sample(
            noise, latent["samples"], comfy.samplers.sampler_object("euler"), sigmas
        )

    whole = run()
    short = shorten(unet.model.diffusion_model, "_evaluate", level=Sparing.STRIPES)
    for _ in range(2):
        assert torch.equal(run(), whole)
    assert short.failed == 4, "two rungs in either run"


def test_other_errors_and_the_end_of_the_ladder(pack, unet, monkeypatch, shorten):
    network = unet.model.diffusion_model
    short = shorten(network, "_evaluate", most=8, size=wide)
    with pytest.raises(MemoryError, match="Tried: everything at once; halves"):
        sampled(pack, unet)
    assert short.failed == 3
    monkeypatch.setattr(network, "_evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sampled(pack, unet)


def decoded(pack, vae, w=graph.W, **options):
    images = one_size(3, w)
    latent = {"samples": graph.det("memory/z", (1, 4, 3, graph.H, w))}
    settings = {"lr_guidance": 1.0, "frames_per_group": 3, "color_fix": "none", **options}
    return pack.nodes.sampling.decode.VAEDecode.execute(latent, vae, images, **settings).result[0]


def test_decoding_goes_on_with_the_same_bits_then_with_fewer_frames(pack, vae, said, shorten):
    network = vae.first_stage_model
    whole, ones = decoded(pack, vae), decoded(pack, vae, frames_per_group=1)
    short = shorten(network, "decode", level=Sparing.STRIPES)
    assert torch.equal(decoded(pack, vae), whole) and short.failed == 1
    assert said[-1].splitlines()[-1].endswith("continued with layers in stripes, 3 frames at once.")
    short.most, short.size = 1, long
    assert torch.equal(decoded(pack, vae), ones)
    assert said[-1].splitlines()[-1].endswith("continued with layers in stripes, 1 frame at once.")


def test_decoding_goes_on_in_tiles(pack, vae, said, shorten):
    network = vae.first_stage_model
    tiled = decoded(pack, vae, WIDE, frames_per_group=1, tile=64)
    shorten(network, "decode", most=64, size=wide)
    assert torch.equal(decoded(pack, vae, WIDE), tiled)
    assert "tiles of 64x64 px with an overlap of 16" in said[-1]


def test_flow_goes_on_pair_by_pair_then_smaller(pack, shorten):
    propagate = pack.nodes.sampling.propagate
    flow_model = pack.nodes.loaders.load.flow_patcher(pack.uav_core.flow.builtin.BuiltinFlow())
    plan = propagate.FlowPropagation(
        flow_model,
        pack.nodes.base.inputs.video_frames(graph.frames(3, 20, 280)),
        "0",
        pack.uav_core.sampling.propagation.PropagationParams(),
    )
    whole, steps = plan.estimate(), []
    network = flow_model.model
    short = shorten(network, "forward", level=Sparing.HALVES)
    plan.flows = None
    for a, b in zip(plan.estimate(on_step=steps.append), whole, strict=True):
        assert torch.equal(a, b)
    assert short.failed == 1 and "halves of a pass and pairs of frames one by one" in str(steps[0])
    short.most, short.size, plan.flows = 256, wide, None
    shapes = {flow.shape for flow in plan.estimate(on_step=steps.append)}
    assert shapes == {whole[0].shape} and "at most 256 px a side" in str(steps[-1])


@pytest.mark.parametrize("level", [Sparing.NONE, Sparing.HALVES])
def test_the_built_in_flow_asks_for_what_it_takes(pack, monkeypatch, level):
    """On a GPU: both directions at once, unless memory is spared."""
    flow, memory = pack.uav_core.flow, pack.uav_core.devices.memory
    monkeypatch.setattr(flow.estimate, "_one_by_one", lambda _: memory.spares(Sparing.HALVES))
    model, frames = flow.builtin.BuiltinFlow(), torch.zeros((1, 3, 180, 320))
    with memory.sparing(level):
        asked = pack.nodes.sampling.propagate.flow_memory(SimpleNamespace(model=model), 180, 320)
        neighbours = flow.estimate.NeighbourFlow(model, 2)
        peak = measure_peak(
            lambda: torch.cat(list(neighbours.both_ways(frames, frames))), frames.device
        )
    assert 1 < asked / peak.live < 1.3


def test_what_cannot_fit_is_not_tried(pack, unet, vae, said, asked, monkeypatch, shorten):
    """On a card that is too small for whole frames: tiles from the first pass on."""
    room = 1.2 * unet.model.least_bytes(2, graph.H, 64)
    sampling = shorten(unet.model.diffusion_model, "_evaluate", most=64, size=wide)
    for name in ("sampling.tiles", "model.vae"):
        module = pack.nodes
        for part in name.split("."):
            module = getattr(module, part)
        monkeypatch.setattr(module, "device_room", lambda _: room)
    sampled(pack, unet, WIDE)
    assert sampling.failed == 0 and sampling.done > 0
    assert "Not enough memory for sampling 2 frames of 80x16 with everything at once" in said[-1]
    assert asked[-1] == unet.model.memory_required((2, 4, 2, graph.H, 64))

    room = 1.2 * vae.memory_required(1, graph.H, WIDE, spared=True)
    decoding = shorten(vae.first_stage_model, "decode", most=1, size=long)
    decoded(pack, vae, WIDE)
    assert decoding.failed == 0 and decoding.done == 3
    assert "Not enough memory for decoding frames of 80x16 with 3 frames at once" in said[-1]


def test_the_decoder_leaves_the_unet_where_it_fits_beside_it(pack, vae, monkeypatch):
    """Asked for is what whole layers take where that is free, and the least of all where not."""
    import comfy.model_management as mm

    asked, need = [], vae.memory_required
    monkeypatch.setattr(
        mm, "load_models_gpu", lambda *_, memory_required=0, **__: asked.append(memory_required)
    )
    size = 3, 180, 320
    missing = vae.patcher.model_size() - vae.patcher.loaded_size()
    for spare, spared in ((0, False), (-1, True)):
        monkeypatch.setattr(mm, "get_free_memory", lambda *_, n=spare: need(*size) + missing + n)
        vae.load(*size)
        assert asked.pop() == need(*size, spared=spared)
    assert need(*size, spared=True) < need(*size)


def test_the_summary_says_what_was_done_for_want_of_memory(pack, monkeypatch):
    own = pack.uav_core.devices.memory
    monkeypatch.setattr(own, "free", lambda _: 0)
    summary = pack.nodes.base.summary.RunSummary()
    assert "To fit into memory" not in summary.to_text("Sampled", 8)
    assert own.must_spare(own.Sparing.STRIPES, torch.device("cpu"), 2**60)
    assert "To fit into memory: layers in stripes." in summary.to_text("Sampled", 8)
