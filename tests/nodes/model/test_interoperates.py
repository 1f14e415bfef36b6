"""ComfyUI's own nodes around the MODEL, the VAE and the frames."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import graph
import pytest
import tiny
import torch
from generated import det
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def native(pack) -> Any:
    return importlib.import_module("nodes")  # ComfyUI's, not the pack's


def extra(name: str) -> Any:
    return importlib.import_module(f"comfy_extras.{name}")


def close(a, b, **tolerance):
    torch.testing.assert_close(a, b, **{"rtol": 1e-3, "atol": 1e-3, **tolerance})


def differ(a, b):
    assert torch.isfinite(a).all()
    assert (a - b).abs().max() > 1e-2


# --- LoRA ----------------------------------------------------------------------------------

LAYERS = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn1.to_v",
    "down_blocks.0.resnets.0.conv1",
    "mid_temp_block.resblocks_3d_temporal.conv2",
)
NAMES = {
    "plain": lambda layer: f"diffusion_model.{layer}",
    "kohya": lambda layer: "lora_unet_" + layer.replace(".", "_"),
}


@pytest.mark.parametrize("naming", NAMES)
@pytest.mark.parametrize("kind", ["merged", "bypass", "bypass, as on a GPU"])
def test_lora_file_is_the_merged_weights(pack, native, unet, tmp_path, monkeypatch, naming, kind):
    import folder_paths

    loader = native.LoraLoaderModelOnly
    if kind != "merged":  # it adds its part to what the layers return
        debug = pytest.importorskip("comfy_extras.nodes_lora_debug")
        loader = debug.LoraLoaderBypassModelOnly
    if kind == "bypass, as on a GPU":
        devices = pack.uav_core.devices
        monkeypatch.setitem(devices.ways._other, "cpu", devices.gpu.GPU)

    weights = dict(tiny.unet_weights(tiny.QUICK_UNET))
    lora = {}
    for layer in LAYERS:
        key = f"{layer}.weight"
        shape = weights[key].shape
        up, down = det(f"up {layer}", (shape[0], 4)) / 4, det(f"down {layer}", (4, *shape[1:])) / 4
        name, points = NAMES[naming](layer), [1] * len(shape[2:])
        lora[f"{name}.lora_up.weight"] = up.view(shape[0], 4, *points)
        lora[f"{name}.lora_down.weight"] = down
        lora[f"{name}.alpha"] = torch.tensor(2.0)
        weights[key] = weights[key] + 0.8 * (2.0 / 4) * (up @ down.flatten(1)).view(shape)
    save_file(lora, tmp_path / "style.safetensors")
    save_file(weights, tmp_path / "merged.safetensors")
    _, extensions = folder_paths.folder_names_and_paths["loras"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], extensions))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})

    (patched,) = loader().load_lora_model_only(unet, "style.safetensors", 0.8)
    merged = pack.nodes.model.unet.load_unet(str(tmp_path / "merged.safetensors"))
    images = graph.frames()
    plain, with_lora, expected = (graph.sample(pack, m, images) for m in (unet, patched, merged))
    differ(with_lora, plain)
    close(with_lora, expected)


# --- saving --------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_snr", [False, True])
def test_a_saved_model_loads_again(pack, models, tmp_path, monkeypatch, zero_snr):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    weights = {
        **load_file(models / "upscale_a_video" / "unet_null.safetensors"),
        "trailing_timesteps": torch.ones(1),
    }
    save_file(weights, tmp_path / "given.safetensors")
    given = pack.nodes.model.unet.load_unet(str(tmp_path / "given.safetensors"))
    (saved,) = (
        extra("nodes_model_advanced").ModelSamplingDiscrete().patch(given, "v_prediction", zero_snr)
    )
    extra("nodes_model_merging").ModelSave().save(saved, "saved")

    (path,) = tmp_path.glob("saved*.safetensors")
    markers = {"v_pred", "ztsnr"} if zero_snr else {"v_pred"}
    assert markers == {key for key in load_file(path) if key in ("v_pred", "ztsnr")}
    again = pack.nodes.model.unet.load_unet(str(path))
    assert again.model.params == given.model.params
    images = graph.frames()
    close(graph.sample(pack, again, images), graph.sample(pack, given, images))
    unconnected = graph.conditioned(pack, images, positive=None, negative=None)
    node = pack.nodes.sampling.sample.SegmentSampler
    results = (
        node.execute(model, *unconnected, 1, 3.0, 9, 8, 2).result[0]["samples"]
        for model in (again, given)
    )
    close(*results)


# --- samplers and what patches them --------------------------------------------------------


def ksampled(pack, native, model, sampler="euler", denoise=1.0, start=None):
    positive, negative, latent = graph.conditioned(pack, graph.frames())
    latent = latent if start is None else {"samples": start}
    arguments = (model, 3, 3, 5.0, sampler, "normal", positive, negative, latent, denoise)
    return native.KSampler().sample(*arguments)[0]["samples"]


def test_native_ksampler(pack, native, unet):
    model = pack.nodes.sampling.sample.Segments.execute(unet, 8, 2).result[0]
    whole = ksampled(pack, native, model)
    assert whole.shape == (1, 4, graph.T, graph.H, graph.W)
    assert torch.isfinite(whole).all() and whole.std() > 0.1
    assert torch.equal(ksampled(pack, native, model), whole)
    # Denoised a little, what it starts from stays; from scratch it does not.
    start = det("start", whole.shape)
    near = ksampled(pack, native, model, denoise=0.05, start=start)
    assert (near - start).norm() < (whole - start).norm() / 2


def test_model_sampling_of_the_same_kind_changes_nothing(pack, unet):
    node = extra("nodes_model_advanced").ModelSamplingDiscrete()
    plain = graph.sample(pack, unet, graph.frames())
    same, other = (
        graph.sample(pack, node.patch(unet, kind, False)[0], graph.frames())
        for kind in ("v_prediction", "eps")
    )
    close(same, plain)
    differ(other, plain)


def test_rescale_cfg_and_cfg_zero(pack, unet):
    images = graph.frames()
    plain = graph.sample(pack, unet, images)
    rescale = extra("nodes_model_advanced").RescaleCFG()
    differ(graph.sample(pack, rescale.patch(unet, 0.7)[0], images), plain)
    close(graph.sample(pack, rescale.patch(unet, 0.0)[0], images), plain)
    zero = extra("nodes_cfg").CFGZeroStar.execute(unet).args[0]
    differ(graph.sample(pack, zero, images), plain)


# --- step caches ---------------------------------------------------------------------------


def cached(unet, name, threshold):
    node = getattr(extra("nodes_easycache"), f"{name}Node")
    return node.execute(unet, threshold, 0.0, 1.0, False).args[0]


class Evaluations:
    """Counts what the network computes, by step, beneath any cache."""

    def __init__(self, model):
        self.model, self.seen = model, []
        network = model.model.diffusion_model
        self.original = network._evaluate
        network._evaluate = self._evaluate

    def _evaluate(self, x, timesteps, *args, **kwargs):
        self.seen.append(round(float(timesteps.flatten()[0])))
        return self.original(x, timesteps, *args, **kwargs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        del self.model.model.diffusion_model._evaluate


def propagation(pack, images, steps):
    module = pack.nodes.sampling.propagate
    t, h, w, _ = images.shape
    still = torch.zeros(1, 2, t - 1, h, w)
    clip = pack.nodes.base.inputs.video_frames(images)
    return module.FlowPropagation(
        None, clip, steps, module.PropagationParams(), flows=(still, still)
    )


@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_caches_skip_steps_but_never_one_that_propagates(pack, unet, name, caplog):
    images, steps = graph.frames(10, 16, 16), 8
    model = cached(unet, name, 3.0)
    moments = [round(float(t)) for t in pack.uav_core.sampling.schedule.timesteps(steps)]
    with Evaluations(model) as without:
        graph.sample(pack, model, images, steps=steps)
    skipped = [i for i, moment in enumerate(moments) if moment not in without.seen]
    assert skipped, "nothing is skipped"
    chosen = skipped[-1]
    with Evaluations(model) as run, caplog.at_level(logging.INFO):
        plan = propagation(pack, images, str(chosen))
        result = graph.sample(pack, model, images, steps=steps, propagation=plan)
    assert torch.isfinite(result).all()
    assert moments[chosen] in run.seen
    assert len(set(run.seen)) < steps
    assert f"{name} - skipped" in caplog.text


@pytest.mark.parametrize("name", ["EasyCache", "LazyCache"])
def test_a_cache_that_never_skips_changes_nothing(pack, unet, name):
    images = graph.frames(10, 16, 16)
    plain = graph.sample(pack, unet, images, steps=3)
    close(graph.sample(pack, cached(unet, name, 0.0), images, steps=3), plain)


def test_easycache_keeps_segments_apart(pack, unet):
    """With one state for all, a segment is given what another one had predicted."""
    images = graph.frames(16, 16, 16)
    images[8:] = 1 - images[8:]
    model, steps = cached(unet, "EasyCache", 3.0), 6
    positive, negative, latent = graph.conditioned(pack, images)
    node = pack.nodes.sampling.sample.SegmentSampler
    with Evaluations(model) as run:
        both = node.execute(model, positive, negative, latent, steps, 6.0, 9, 8, 0)
    assert len(run.seen) < steps * 2, "nothing is skipped"
    # Alone, the first segment has no other one to be mixed up with.
    frames = pack.nodes.sampling.condition.LOW_RES
    cut = [
        [[text, {**options, frames: options[frames][:, :, :8]}] for text, options in cond]
        for cond in (positive, negative)
    ]
    first = {"samples": latent["samples"][:, :, :8]}
    alone = node.execute(model, *cut, first, steps, 6.0, 9, 8, 0)
    close(both.result[0]["samples"][:, :, :8], alone.result[0]["samples"])


def test_easycache_keeps_tiles_apart(pack, unet):
    images = graph.frames(4, 16, 40)
    model = pack.nodes.sampling.tiles.with_tiles(cached(unet, "EasyCache", 3.0), 16, 0)
    with Evaluations(model) as run:
        result = graph.sample(pack, model, images, steps=6)
    assert 0 < len(run.seen) < 6 * 3 * 2
    assert torch.isfinite(result).all()
    one = cached(unet, "EasyCache", 0.0)
    plain = graph.sample(pack, pack.nodes.sampling.tiles.with_tiles(unet, 16, 0), images, steps=3)
    close(
        graph.sample(pack, pack.nodes.sampling.tiles.with_tiles(one, 16, 0), images, steps=3), plain
    )


def test_a_long_video_runs_without_caches(pack, unet, caplog):
    model = cached(unet, "EasyCache", 3.0).clone()
    pack.nodes.sampling.caches.without_caches(model)
    assert "no effect on a long video" in caplog.text
    close(graph.sample(pack, model, graph.frames()), graph.sample(pack, unet, graph.frames()))


# --- VAE -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vae_3d(pack, models):
    return pack.nodes.model.vae.VideoVAE(str(models / "upscale_a_video" / "vae_3d.safetensors"))


def test_native_decode_gives_every_frame(native, vae_3d):
    samples = det("z", (1, 4, 7, graph.H, graph.W))
    (images,) = native.VAEDecode().decode(vae_3d, {"samples": samples})
    assert images.shape == (7, 4 * graph.H, 4 * graph.W, 3)
    (single,) = native.VAEDecode().decode(vae_3d, {"samples": samples[:, :, 2:3]})
    (pictures,) = native.VAEDecode().decode(vae_3d, {"samples": samples[0].transpose(0, 1)})
    assert single.shape[0] == 1 and torch.equal(pictures, images)


def test_native_tiled_decode(native, vae_3d):
    samples = {"samples": det("z", (1, 4, 3, 24, 40))}
    (whole,) = native.VAEDecode().decode(vae_3d, samples)
    (tiled,) = native.VAEDecodeTiled().decode(vae_3d, samples, 128, 64, 64, 8)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.1
    (one,) = native.VAEDecodeTiled().decode(vae_3d, samples, 512, 64, 64, 8)
    close(one, whole)


def test_native_tiled_encode_is_the_whole_one(native, vae_3d):
    images = graph.frames(3, 32, 48)
    (whole,) = native.VAEEncode().encode(vae_3d, images)
    (tiled,) = native.VAEEncodeTiled().encode(vae_3d, images, 512, 64, 64, 8)
    assert torch.equal(tiled["samples"], whole["samples"])


def test_native_encode_for_inpainting(native, vae_3d):
    images, mask = graph.frames(3, 34, 48), torch.zeros(3, 34, 48)
    (latent,) = native.VAEEncodeForInpaint().encode(vae_3d, images, mask, 6)
    (whole,) = native.VAEEncode().encode(vae_3d, images[:, 1:33])
    close(latent["samples"], whole["samples"])
    assert latent["noise_mask"].shape == (3, 1, 32, 48)


@pytest.mark.parametrize("node", ["VAESave", "CheckpointSave"])
def test_saving_the_vae_is_refused(pack, unet, vae_3d, tmp_path, monkeypatch, node):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    given = (vae_3d,) if node == "VAESave" else (unet, None, vae_3d)
    with pytest.raises(pack.uav_core.InputError, match="Copy the file") as raised:
        getattr(extra("nodes_model_merging"), node)().save(*given, "saved")
    assert vae_3d.path in str(raised.value)
    assert not list(tmp_path.iterdir())


# --- frames --------------------------------------------------------------------------------


def batch(kind: str, images: torch.Tensor) -> torch.Tensor:
    """The same frames as video loaders hand them over."""
    return {
        "view": images.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0),
        "every second": torch.stack((images, images.flip(0)), 1).flatten(0, 1)[::2],
        "without alpha": torch.cat((images, images[..., :1]), -1)[..., :3],
        "half": images.half(),
    }[kind]


@pytest.mark.parametrize("kind", ["view", "every second", "without alpha", "half"])
def test_frames_of_any_layout(pack, unet, kind):
    images = graph.frames(8)
    given = batch(kind, images)
    assert kind == "half" or not given.is_contiguous()
    expected = graph.sample(pack, unet, images, steps=1)
    tolerance = 0.05 if kind == "half" else 1e-5
    result = graph.sample(pack, unet, given, steps=1)
    assert result.dtype == torch.float32
    close(result, expected, atol=tolerance, rtol=tolerance)


def test_frames_with_alpha_say_what_to_do(pack):
    with pytest.raises(pack.uav_core.InputError, match="Split Image with Alpha"):
        graph.conditioned(pack, torch.rand(3, 16, 16, 4))


def test_a_schedule_of_comfyuis_own(pack, unet):
    """ComfyUI's *AlignYourStepsScheduler* with our sampler is DDIM on its sigmas."""
    import comfy.samplers

    images, guidance, level = graph.frames(8), 6.0, 120
    sigmas = extra("nodes_align_your_steps").AlignYourStepsScheduler.execute("SD1", 4, 1.0).args[0]
    positive, negative, latent = graph.conditioned(pack, images, noise_level=level)
    noise = pack.uav_core.sampling.noise.frame_noise(9, "latent", range(8), 4, graph.H, graph.W)
    guider = comfy.samplers.CFGGuider(
        pack.nodes.sampling.sample.Segments.execute(unet, 8, 2).result[0]
    )
    guider.set_conds(positive, negative)
    guider.set_cfg(guidance)
    sampler = pack.nodes.sampling.sample.Sampler.execute().result[0]
    result = guider.sample(noise, latent["samples"], sampler, sigmas, seed=9)

    core = pack.uav_core
    alphas = core.sampling.schedule.alphas_cumprod()
    table = ((1 - alphas) / alphas).log() / 2
    low_res = positive[0][1][pack.nodes.sampling.condition.LOW_RES]
    x = noise * (1 + sigmas[0] ** 2).sqrt()
    for sigma, lower in zip(sigmas[:-1], sigmas[1:], strict=True):  # noqa: RUF007
        signal = (1 + sigma**2).rsqrt()
        step = int((table - sigma.log()).abs().argmin())
        v = core.sampling.pipeline.velocity(
            tiny.quick_unet(), x * signal, step, low_res, tiny.context(), level, guidance
        )
        clean = signal * (x * signal) - sigma * signal * v
        x = clean + (x - clean) / sigma * lower
    close(result, x / core.models.vae.LATENT_SCALE)
