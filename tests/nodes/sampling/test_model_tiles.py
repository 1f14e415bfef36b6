"""Tiles of a MODEL, through ComfyUI's guider, sampler and memory management."""

from __future__ import annotations

from importlib import import_module

import graph
import pytest
import tiny
import torch
from tile_pictures import jump, paste, smooth

from uav_core.errors import InputError
from uav_core.sampling.tiles import plan_tiles


@pytest.fixture(scope="module")
def with_tiles(pack):
    return import_module(f"{pack.__name__}.nodes.sampling.tiles").with_tiles


@pytest.fixture(scope="module")
def whole(pack, unet):
    return sample(pack, unet)


def sample(pack, model) -> torch.Tensor:
    """Two frames of 16x24, one step."""
    return graph.sample(pack, model, graph.frames(2), steps=1)


def watched(model, shapes: list):
    """A clone that records the size of what the network itself is given."""
    from comfy.patcher_extension import WrappersMP

    def watch(executor, x, *args, **kwargs):
        shapes.append(tuple(x.shape[1:]))
        return executor(x, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    return model


def test_one_tile_is_no_tile(pack, unet, with_tiles, whole):
    assert torch.equal(sample(pack, with_tiles(unet, 24, 8)), whole)


def test_two_tiles_are_cropped_with_their_frames_and_blended(pack, unet, with_tiles, whole):
    shapes: list = []
    result = sample(pack, watched(with_tiles(unet, 16, 8), shapes))
    assert set(shapes) == {(7, 2, 16, 16)}
    assert result.shape == whole.shape
    assert result.isfinite().all()
    assert not torch.equal(result, whole)
    assert "model_function_wrapper" not in unet.model_options


def test_other_wrappers_stay_and_earlier_tiles_go(pack, unet, with_tiles):
    calls, shapes = [], []

    def around(apply_model, args):
        calls.append(tuple(args["input"].shape[-2:]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model = unet.clone()
    model.set_model_unet_function_wrapper(around)
    sample(pack, watched(with_tiles(with_tiles(model, 24, 8), 16, 8), shapes))
    assert set(calls) == {(16, 24)}
    assert len(shapes) == 2 * len(calls)
    assert set(shapes) == {(7, 2, 16, 16)}


def test_memory_is_budgeted_for_a_tile(pack, unet, with_tiles, asked):
    # Of one segment, as without tiles.
    model = with_tiles(with_tiles(unet, 24, 8), 16, 8)
    for each in (unet, model):
        graph.sample(pack, each, graph.frames(3), steps=1, segment_length=2, overlap=1)
    assert asked[1] / asked[0] == pytest.approx(16 * 16 / (16 * 24))


def test_cancel_between_tiles(pack, unet, with_tiles):
    import comfy.model_management as mm

    class Cancelling(list):
        def append(self, shape):
            super().append(shape)
            mm.interrupt_current_processing()

    shapes = Cancelling()
    model = watched(with_tiles(unet, 16, 8), shapes)
    try:
        with pytest.raises(mm.InterruptProcessingException):
            sample(pack, model)
    finally:
        mm.interrupt_current_processing(False)
    assert len(shapes) == 1


@torch.inference_mode()
def test_no_border_on_a_smooth_clip(golden_unet, with_tiles):
    h, w = 32, 48
    frames, model = smooth("jlr", 3, h, w), golden_unet.model
    # With the most noise the result is the network's own, and not what it was given.
    sigma = model.model_sampling.sigma_max.view(1)
    noise = smooth("jl", 4, h, w) * (1 + sigma**2).sqrt()

    def args(noise, frames):
        c = {"c_concat": frames, "c_crossattn": tiny.context()[:1], "y": torch.tensor([120])}
        return {"input": noise, "timestep": sigma, "c": c, "cond_or_uncond": [0]}

    def denoise(noise, frames):
        given = args(noise, frames)
        return model.apply_model(given["input"], given["timestep"], **given["c"])

    plan = plan_tiles((h, w), 32, 16)
    wrapper = with_tiles(golden_unet, 32, 16).model_options["model_function_wrapper"]
    blended = wrapper(model.apply_model, args(noise, frames))
    parts = [(tile, denoise(tile.crop(noise), tile.crop(frames))) for tile in plan]
    assert jump(blended, plan) < 1.1
    assert jump(paste(parts, blended), plan) > 1.4


def test_impossible_tiles_are_refused_at_once(unet, with_tiles):
    with pytest.raises(Exception, match="overlap of 16") as caught:
        with_tiles(unet, 16, 16)
    assert type(caught.value).__name__ == InputError.__name__
