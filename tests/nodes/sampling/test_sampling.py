"""The MODEL is a first-class citizen: native guiders, samplers, patches and hooks work on it."""

from __future__ import annotations

import importlib
from typing import Any

import graph
import pytest
import tiny
import torch
from generated import det


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **{"rtol": 1e-4, "atol": 1e-4, **tolerance})


def differ(a, b):
    assert (a - b).abs().max() > 1e-2


def test_a_seed_gives_one_result_and_leaves_the_global_generator_alone(pack, unet):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = graph.sample(pack, unet, graph.frames())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(graph.sample(pack, unet, graph.frames()), first)
    differ(graph.sample(pack, unet, graph.frames(), seed=10), first)


def test_noise_belongs_to_its_frame(pack):
    noise = pack.uav_core.sampling.noise.frame_noise
    whole = noise(3, "latent", range(6), 4, 5, 7)
    assert torch.equal(noise(3, "latent", range(2, 5), 4, 5, 7), whole[:, :, 2:5])
    differ(noise(3, "low_res", range(6), 4, 5, 7), whole)
    assert abs(whole.mean()) < 0.1
    assert abs(whole.std() - 1) < 0.1


def test_the_parts_make_the_whole(pack, unet):
    import comfy.samplers

    positive, negative, latent = graph.conditioned(pack, graph.frames())
    sample = pack.nodes.sampling.sample
    model = sample.Segments.execute(unet, 8, 2).result[0]
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(6.0)
    noise = pack.uav_core.sampling.noise.frame_noise(
        9, "latent", range(graph.T), 4, graph.H, graph.W
    )
    result = guider.sample(
        noise,
        latent["samples"],
        sample.Sampler.execute().result[0],
        sample.Sigmas.execute(2, unet).result[0],
        seed=9,
    )
    close(result, graph.sample(pack, unet, graph.frames()))


def test_a_run_split_in_two_is_the_whole_run(pack, unet):
    import comfy.samplers

    positive, negative, latent = graph.conditioned(pack, graph.frames())
    sample = pack.nodes.sampling.sample
    noise = pack.uav_core.sampling.noise.frame_noise(
        9, "latent", range(graph.T), 4, graph.H, graph.W
    )
    sigmas = sample.Sigmas.execute(4).result[0]

    def run(noise, start, part):
        guider = comfy.samplers.CFGGuider(sample.Segments.execute(unet, 8, 2).result[0])
        guider.set_conds(positive, negative)
        guider.set_cfg(6.0)
        return guider.sample(noise, start, sample.Sampler.execute().result[0], part, seed=9)

    whole = run(noise, latent["samples"], sigmas)
    half = run(noise, latent["samples"], sigmas[:3])
    close(run(torch.zeros_like(noise), half, sigmas[2:]), whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc"])
def test_native_samplers(pack, unet, sampler):
    import comfy.sample

    positive, negative, latent = graph.conditioned(pack, graph.frames())
    model = pack.nodes.sampling.sample.Segments.execute(unet, 8, 2).result[0]
    noise = comfy.sample.prepare_noise(latent["samples"], 1)
    result = comfy.sample.sample(
        model, noise, 4, 5.0, sampler, "normal", positive, negative, latent["samples"], seed=1
    )
    assert result.shape == latent["samples"].shape
    assert torch.isfinite(result).all()
    assert result.std() > 0.1


def test_native_euler_on_our_sigmas_is_ddim(pack, unet):
    import comfy.sample
    import comfy.samplers

    positive, negative, latent = graph.conditioned(pack, graph.frames(8))
    sigmas = pack.nodes.sampling.sample.Sigmas.execute(3, unet).result[0]
    noise = det("euler", latent["samples"].shape)
    ours = pack.nodes.sampling.sample.sample_segments(
        unet, positive, negative, latent["samples"], noise, steps=3
    )
    # Euler starts from noise * sigma and ends at the last sigma: bring both ends to ours.
    start = noise * ((1 + sigmas[0] ** 2).sqrt() / sigmas[0])
    guider = comfy.samplers.CFGGuider(unet)
    guider.set_conds(positive, negative)
    guider.set_cfg(6.0)
    native = guider.sample(
        start, latent["samples"], comfy.samplers.sampler_object("euler"), sigmas, seed=0
    )
    close(native / (1 + sigmas[-1] ** 2).sqrt(), ours, rtol=1e-3, atol=1e-3)


def lora():
    key = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"
    return {
        f"diffusion_model.{key}.lora_up.weight": det("up", (32, 4)),
        f"diffusion_model.{key}.lora_down.weight": det("down", (4, 32)),
        f"diffusion_model.{key}.alpha": torch.tensor(4.0),
    }


def test_lora_changes_the_result_and_comes_off(pack, unet):
    import comfy.sd

    plain = graph.sample(pack, unet, graph.frames())
    patched, _ = comfy.sd.load_lora_for_models(unet, None, lora(), 1.0, 0)
    differ(graph.sample(pack, patched, graph.frames()), plain)
    close(graph.sample(pack, unet, graph.frames()), plain)


def test_lora_hook_on_one_conditioning(pack, unet):
    import comfy.hooks

    images = graph.frames()
    positive, negative, latent = graph.conditioned(pack, images)
    run = pack.nodes.sampling.sample.SegmentSampler.execute
    plain = run(unet, positive, negative, latent, 2, 6.0, 9, 8, 2).result[0]["samples"]
    hooks = comfy.hooks.create_hook_lora(lora(), 1.0, 0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(positive, hooks)
    changed = run(unet, hooked, negative, latent, 2, 6.0, 9, 8, 2).result[0]["samples"]
    differ(changed, plain)


def test_only_frames_are_cut_to_a_segment(pack, unet):
    """Not a text as wide as the clip is long, which 48 frames were with the included weights."""
    width = tiny.QUICK_UNET.context_dim
    images = graph.frames(width, 16, 16)
    whole = graph.sample(pack, unet, images, steps=1)
    # As the first segment does not see the end, it is the same for a longer clip.
    longer = torch.cat((images, images[-1:]))
    close(whole[:, :, :6], graph.sample(pack, unet, longer, steps=1)[:, :, :6])


@pytest.mark.parametrize(("frames", "h", "masks"), [(12, 16, 1), (12, 16, 12), (16, 16, 1)])
def test_a_mask_is_cut_only_along_time(pack, unet, frames, h, masks):
    """One for all frames, of any height, or one for each."""
    native: Any = importlib.import_module("nodes")
    images = graph.frames(frames, h, 24)
    positive, negative, latent = graph.conditioned(pack, images)
    run = pack.nodes.sampling.sample.SegmentSampler.execute

    def sampled(mask):
        masked = native.ConditioningSetMask().append(positive, mask, "default", 1.0)[0]
        return run(unet, masked, negative, latent, 1, 6.0, 9, 8, 2).result[0]["samples"]

    plain = run(unet, positive, negative, latent, 1, 6.0, 9, 8, 2).result[0]["samples"]
    close(sampled(torch.ones(masks, h, 24)), plain)
    half = torch.ones(masks, h, 24)
    half[..., :12] = 0
    changed = (sampled(half) - plain).abs()
    assert changed[..., :12].max() > 1e-2 and changed[..., 12:].max() < 1e-4
    if masks > 1:
        half = torch.ones(masks, h, 24)
        half[:6] = 0
        changed = (sampled(half) - plain).abs()
        assert changed[:, :, :6].max() > 1e-2 and changed[:, :, 8:].max() < 1e-4


def test_segments_of_several_clips_are_refused(pack, unet):
    import comfy.samplers

    positive, negative, latent = graph.conditioned(pack, graph.frames())
    sample = pack.nodes.sampling.sample
    guider = comfy.samplers.CFGGuider(sample.Segments.execute(unet, 8, 2).result[0])
    guider.set_conds(positive, negative)
    two = det("two", latent["samples"].shape).repeat(2, 1, 1, 1, 1)
    sampler, sigmas = sample.Sampler.execute().result[0], sample.Sigmas.execute(4).result[0]
    with pytest.raises(pack.uav_core.InputError, match="2 clips"):
        guider.sample(two, torch.zeros_like(two), sampler, sigmas, seed=9)


def test_propagation_of_another_clip_is_refused_before_the_first_step(pack, unet):
    """Also where the chosen step is the last."""
    import comfy.samplers

    sample = pack.nodes.sampling.sample
    positive, negative, latent = graph.conditioned(pack, graph.frames())
    flow = pack.nodes.loaders.load.LoadFlowModel.execute("built-in (no weights)").result[0]
    node = pack.nodes.sampling.propagate.Propagation
    other = node.execute(flow, graph.frames(graph.T - 1), "3", 0.5, 0.01, 0.5).result[0]
    guider = comfy.samplers.CFGGuider(unet)
    guider.set_conds(positive, negative)
    sampler = sample.Sampler.execute(other).result[0]
    steps = []
    with pytest.raises(pack.uav_core.InputError, match="frames"):
        guider.sample(
            det("noise", latent["samples"].shape),
            latent["samples"],
            sampler,
            sample.Sigmas.execute(4).result[0],
            callback=lambda *given: steps.append(given),
            seed=9,
        )
    assert steps == []


def test_wrappers_see_every_segment(pack, unet):
    import comfy.patcher_extension as pe

    shapes = []

    def wrapper(executor, x, *args, **kwargs):
        shapes.append(tuple(x.shape))
        return executor(x, *args, **kwargs)

    model = unet.clone()
    model.add_wrapper_with_key(pe.WrappersMP.DIFFUSION_MODEL, "test", wrapper)
    graph.sample(pack, model, graph.frames(20), guidance=1.0, steps=1)
    assert shapes == [(1, 7, 8, graph.H, graph.W)] * 3


def test_memory_is_budgeted_per_segment(pack, unet):
    import comfy.patcher_extension as pe

    seen = []

    def wrapper(executor, model, noise_shape, *args, **kwargs):
        seen.append(tuple(noise_shape))
        return executor(model, noise_shape, *args, **kwargs)

    model = unet.clone()
    with_segments = pack.nodes.sampling.segments.with_segments(model, 8, 2)
    with_segments.add_wrapper_with_key(pe.WrappersMP.PREPARE_SAMPLING, "zz", wrapper)
    positive, negative, latent = graph.conditioned(pack, graph.frames(20))
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(with_segments)
    guider.set_conds(positive, negative)
    sampler = pack.nodes.sampling.sample.Sampler.execute().result[0]
    guider.sample(
        torch.zeros(1, 4, 20, graph.H, graph.W),
        latent["samples"],
        sampler,
        pack.nodes.sampling.sample.Sigmas.execute(1, unet).result[0],
    )
    assert seen[-1][2] == 8


def test_null_text_is_the_text_that_came_with_the_weights(pack, unet, models):
    path = models / "upscale_a_video" / "unet_null.safetensors"
    model = pack.nodes.model.unet.load_unet(str(path))
    null = [[tiny.context()[:1], {}]]
    images = graph.frames()
    given = graph.conditioned(pack, images, positive=null, negative=null)
    opened = graph.conditioned(pack, images, positive=None, negative=None)
    run = pack.nodes.sampling.sample.SegmentSampler.execute
    a, b = (
        run(model, p, n, latent, 1, 6.0, 0, 8, 2).result[0]["samples"]
        for p, n, latent in (given, opened)
    )
    close(a, b)


@pytest.mark.parametrize(("dtype", "error"), [("fp16", 0.03), ("bf16", 0.2), ("fp8_e4m3fn", 0.6)])
def test_precisions(pack, unet, models, dtype, error):
    path = str(models / "upscale_a_video" / "unet.safetensors")
    low = pack.nodes.model.unet.load_unet(path, pack.nodes.loaders.load.WEIGHT_DTYPES[dtype])
    assert low.model.get_dtype() == pack.nodes.loaders.load.WEIGHT_DTYPES[dtype]
    exact, rough = (graph.sample(pack, m, graph.frames(8), steps=1) for m in (unet, low))
    relative = (rough - exact).norm() / exact.norm()
    assert 0 < relative < error


@pytest.mark.parametrize(("t", "h", "w"), [(1, 16, 16), (2, 17, 23), (9, 20, 16), (13, 16, 18)])
def test_any_length_and_size(pack, unet, t, h, w):
    result = graph.sample(pack, unet, graph.frames(t, h, w), steps=1)
    assert result.shape == (1, 4, t, h, w)
    assert torch.isfinite(result).all()


def test_unloading_gives_the_models_back(pack, unet):
    import comfy.model_management as mm

    graph.sample(pack, unet, graph.frames(8), steps=1)
    assert [patcher.model for patcher in graph.loaded()] == [unet.model]
    mm.unload_all_models()
    assert graph.loaded() == []


def test_guidance_in_a_part_of_the_run(pack, unet, monkeypatch):
    """The same steps as the core guides, and no negative text elsewhere."""
    images, calls = graph.frames(3), []
    run = type(unet.model).apply_model

    def counted(self, x, *args, **kwargs):
        calls.append(len(x))
        return run(self, x, *args, **kwargs)

    monkeypatch.setattr(type(unet.model), "apply_model", counted)
    plain = graph.sample(pack, unet, images, steps=4)
    whole = graph.sample(pack, unet, images, steps=4, guidance_start=0.0, guidance_end=1.0)
    assert torch.equal(whole, plain)
    calls.clear()
    part = graph.sample(pack, unet, images, steps=4, guidance_start=0.25, guidance_end=0.5)
    assert sum(calls) == 5
    differ(part, plain)
    calls.clear()
    none = graph.sample(pack, unet, images, steps=4, guidance_start=0.5, guidance_end=0.5)
    close(none, graph.sample(pack, unet, images, steps=4, guidance=1.0))


def test_values_for_other_weights_are_told_before_and_after(pack, unet, monkeypatch):
    told: list[str] = []
    module = pack.nodes.sampling.sample
    monkeypatch.setattr(module, "show_status", lambda node, text: told.append(text))
    graph.sample(pack, unet, graph.frames(2), steps=4, guidance=1.0)
    assert len(told) == 1 and "do not suit" not in told[0]
    graph.sample(pack, unet, graph.frames(2), steps=4, guidance=30.0)
    assert told[1].startswith("These values do not suit the included weights: guidance 30")
    assert told[2].startswith("Sampled") and told[1] in told[2]
