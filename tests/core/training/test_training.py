"""Training on noise pictures: small, but with the real networks, loop and files."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import TRAINED_UNET
from torch import Tensor, nn

from uav_core import load_unet, load_vae
from uav_core.errors import InputError
from uav_core.models.unet import TemporalUNet
from uav_core.models.vae import LATENT_SCALE, TemporalVAE, VAEParams
from uav_core.training import export, losses
from uav_core.training import unet as unet_training
from uav_core.training import vae as vae_training
from uav_core.training.data.batches import BatchParams, clean_batch, paired_batch
from uav_core.training.loop import Loop, LoopParams
from uav_core.training.start import start_as_resize
from uav_core.training.temporal import (
    choose_layers,
    is_temporal,
    norms_in_plain_layout,
    save_memory,
    silence_temporal,
    temporal_bypassed,
)

VAE = VAEParams(channels=(96, 32, 96), resnets=1, temporal=False)
LOOP = LoopParams(steps=6, lr=1e-3, warmup=2, precision="fp32", save_every=3, log_every=1)
BATCH = BatchParams(clips=2, frames=1, size=32)


class Waves:
    """Smooth pictures that move."""

    def sample(self, rng: np.random.Generator, frames: int, height: int, width: int) -> Tensor:
        coarse = rng.standard_normal((1, 3, height // 8 + 1, width // 8 + 1), dtype=np.float32)
        picture = F.interpolate(torch.from_numpy(coarse), (height, width + frames), mode="bicubic")
        moving = [picture[0, :, :, i : i + width] for i in range(frames)]
        return torch.stack(moving, dim=1).tanh()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def inputs(b: int = 1, t: int = 3, side: int = 8) -> tuple[Tensor, ...]:
    latent, low_res = torch.randn(b, 4, t, side, side), torch.randn(b, 3, t, side, side)
    time, level = torch.full((b,), 500), torch.full((b,), 20)
    return latent, time, low_res, torch.randn(b, 8, TRAINED_UNET.context_dim), level


# ---------------------------------------------------------------- temporal layers


def test_silenced_temporal_layers_add_nothing():
    unet, given = TemporalUNet(TRAINED_UNET), inputs()
    with torch.no_grad():
        with temporal_bypassed(unet):
            image_model = unet(*given)
        assert not torch.allclose(unet(*given), image_model, atol=1e-3)
        silence_temporal(unet)
        assert torch.allclose(unet(*given), image_model, atol=1e-5)


def test_the_bypass_ends_with_its_block():
    unet, given = TemporalUNet(TRAINED_UNET), inputs()
    with torch.no_grad():
        before = unet(*given)
        with temporal_bypassed(unet):
            pass
        assert torch.equal(unet(*given), before)


@pytest.mark.parametrize("layers", ["all", "spatial", "temporal"])
def test_only_the_chosen_layers_learn(layers):
    unet = TemporalUNet(TRAINED_UNET)
    norms_in_plain_layout(unet)
    choose_layers(unet, layers)
    with temporal_bypassed(unet, layers == "spatial"):
        unet(*inputs()).square().mean().backward()
    for name, parameter in unet.named_parameters():
        learns = layers == "all" or is_temporal(name) == (layers == "temporal")
        assert parameter.requires_grad == learns, name
        if not learns:
            assert parameter.grad is None, name


def test_saving_memory_and_plain_norms_change_no_gradient():
    unet, given = TemporalUNet(TRAINED_UNET), inputs()

    def gradients() -> list[Tensor]:
        unet.zero_grad()
        unet(*given).square().mean().backward()
        return [p.grad.clone() for p in unet.parameters() if p.grad is not None]

    plain = gradients()
    norms_in_plain_layout(unet)
    save_memory(unet)
    for a, b in zip(plain, gradients(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------- losses


def test_gradient_loss_sees_edges_and_not_brightness():
    target = torch.randn(1, 3, 2, 8, 8)
    assert losses.gradient_loss(target + 0.5, target) == pytest.approx(0, abs=1e-6)
    step = torch.zeros(1, 1, 1, 4, 4)
    step[..., 2:] = 1
    # One of three horizontal differences is 1, no vertical one is.
    assert losses.gradient_loss(step, torch.zeros_like(step)) == pytest.approx(1 / 3)


def test_kl_is_zero_for_a_standard_normal_alone():
    zero = torch.zeros(4)
    assert losses.kl_loss(zero, zero) == 0
    assert losses.kl_loss(zero + 2, zero) == pytest.approx(2.0)


def test_hinge_losses_end_where_they_should():
    sure, wrong = torch.full((3,), 2.0), torch.full((3,), -2.0)
    assert losses.hinge_discriminator(sure, wrong) == 0
    assert losses.hinge_discriminator(wrong, sure) == pytest.approx(6)
    assert losses.hinge_generator(sure) < losses.hinge_generator(wrong)


# ---------------------------------------------------------------- start and latent scale


@pytest.fixture(scope="module")
def started() -> TemporalVAE:
    torch.manual_seed(0)
    vae = TemporalVAE(VAE)
    batch = replace(BATCH, clips=16, size=64)
    start_as_resize(vae, clean_batch(Waves(), np.random.default_rng(1), batch))
    return vae


def test_a_vae_starts_as_a_resize(started):
    pictures = clean_batch(Waves(), np.random.default_rng(2), replace(BATCH, clips=8, size=64))
    with torch.no_grad():
        z = started.encode(pictures)
        small = F.avg_pool3d(pictures, (1, 4, 4))
        assert (z[:, :3] / 2 - small).abs().mean() < 0.1
        assert (started.decode(z) - pictures).abs().mean() < 0.25 * pictures.abs().mean()


def test_normalising_changes_the_latent_and_not_the_picture(started):
    pictures = clean_batch(Waves(), np.random.default_rng(3), replace(BATCH, clips=8))
    with torch.no_grad():
        before = started.decode(started.encode(pictures))
        vae_training.normalise_latent(started, Waves(), BATCH, batches=16)
        z = started.encode(pictures)
        assert torch.allclose(started.decode(z), before, atol=1e-3)
    scaled = (z * LATENT_SCALE).transpose(0, 1).flatten(1)
    assert torch.allclose(scaled.std(dim=1), torch.ones(4), atol=0.35)
    assert scaled.mean(dim=1).abs().max() < 0.5


def test_the_clips_go_to_the_device_of_the_vae(started):
    vae = copy.deepcopy(started).to("meta")
    vae_training.normalise_latent(vae, Waves(), BATCH, batches=1)


@pytest.mark.parametrize("numbers", [{"size": 50}, {"clips": 0}, {"frames": 0}])
def test_sizes_that_no_batch_can_have_are_refused(numbers):
    with pytest.raises(InputError, match="multiple of 8"):
        replace(BATCH, **numbers)
    with pytest.raises(InputError, match="save_every is 0"):
        replace(LOOP, save_every=0)


def test_the_temporal_decoder_starts_as_the_plain_one(started):
    video = vae_training.with_temporal_decoder(started, 32)
    z, low_res = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 3, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(video.decode(z, low_res), started.decode(z), atol=1e-4)


# ---------------------------------------------------------------- loop


def decoder_run(folder: Path, loop: LoopParams = LOOP) -> Loop:
    torch.manual_seed(0)
    vae = vae_training.with_temporal_decoder(TemporalVAE(replace(VAE, channels=(32, 32, 32))), 32)
    norms_in_plain_layout(vae)
    batch = replace(BATCH, clips=1, frames=3)
    loss = vae_training.decoder_loss(
        vae,
        Waves(),
        batch,
        vae_training.VAELoss(),
        loop,
        unet_training.encoded_latents(vae, 0.5),
    )
    return Loop(folder, vae, loss, loop)


def weights_of(run: Loop) -> dict[str, Tensor]:
    kept = {f"now.{k}": v.clone() for k, v in run.module.state_dict().items()}
    return kept | {f"ema.{k}": v for k, v in run.average.state_dict().items()}


def test_a_resumed_run_ends_where_an_undisturbed_one_does(tmp_path):
    whole = decoder_run(tmp_path / "whole")
    whole.run()
    first = decoder_run(tmp_path / "parts")
    first.run(until=4)
    start = weights_of(first)
    second = decoder_run(tmp_path / "parts")
    assert second.step == 4
    second.run()
    wanted = weights_of(whole)
    # Bit for bit, but for what the maths library does not repeat: a gradient that is nothing but
    # rounding has a random sign, which Adam turns into a step. Two steps without the optimiser's
    # state would be off by 1e-3.
    for name, value in weights_of(second).items():
        assert torch.allclose(value, wanted[name], rtol=0, atol=4e-4), name
    assert any(not torch.allclose(v, wanted[n], rtol=0, atol=4e-4) for n, v in start.items())
    for row, expected in zip(second.history, whole.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-3)
    assert (tmp_path / "parts" / "losses.csv").read_text().count("\n") == LOOP.steps + 1


def test_other_settings_are_refused_in_the_folder_of_a_run(tmp_path):
    decoder_run(tmp_path).run(until=3)
    with pytest.raises(InputError, match="other settings"):
        decoder_run(tmp_path, replace(LOOP, lr=5e-4))


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(tmp_path):
    layer = nn.Linear(1, 1)
    before = layer.weight.clone()

    def loss(rng: np.random.Generator) -> dict[str, Tensor]:
        return {"nan": layer.weight.sum() * float("nan")}

    Loop(tmp_path, layer, loss, replace(LOOP, steps=1)).run()
    assert torch.equal(layer.weight, before)


def test_training_makes_the_loss_smaller(tmp_path):
    loop = replace(LOOP, steps=40, lr=2e-3, warmup=5)
    run = decoder_run(tmp_path, loop)
    run.run()
    first, last = (sum(row["l1"] for row in rows) for rows in (run.history[:6], run.history[-6:]))
    assert last < 0.95 * first


def test_a_unet_learns_and_its_file_loads(tmp_path):
    vae = TemporalVAE(VAE).eval()
    network = TemporalUNet(TRAINED_UNET)
    texts = unet_training.TextEmbeddings(8, TRAINED_UNET.context_dim)
    model = unet_training.UNetWithTexts(network, texts)
    norms_in_plain_layout(model)
    batch = replace(BATCH, frames=2)
    loop = replace(LOOP, steps=6)
    before = {name: p.clone() for name, p in model.named_parameters()}
    loss = unet_training.unet_loss(model, vae, Waves(), batch, loop, negative_share=0.5)
    Loop(tmp_path / "run", model, loss, loop).run()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"texts.null_text_embedding", "texts.negative_text_embedding"} <= moved
    assert any(is_temporal(name) for name in moved)

    export.write(tmp_path / "run" / export.RESULT, export.unet_tensors(model), torch.float32)
    vae_file = tmp_path / "vae.safetensors"
    export.write(vae_file, vae.state_dict(), torch.float32)
    loaded, known = export.load_trained_unet(tmp_path / "run")
    assert loaded.params == TRAINED_UNET
    assert torch.equal(known["null_text_embedding"], texts.null_text_embedding)
    paths = export.export(tmp_path / "weights", vae_file, unet=tmp_path / "run")
    assert {path.stem for path in paths} == {
        "uav_small_vae_3d",
        "uav_small_unet",
        "uav_small_text",
    }
    shipped = load_unet(tmp_path / "weights" / "uav_small_unet.safetensors")
    assert shipped.null_text_embedding is not None
    given = inputs()
    with torch.no_grad():
        assert torch.allclose(shipped(*given), network(*given), atol=2e-2)
    assert load_vae(tmp_path / "weights" / "uav_small_vae_3d.safetensors").params == VAE


def test_the_velocity_target_is_the_samplers():
    from uav_core.sampling import schedule

    latent, noise = torch.randn(2, 4, 1, 4, 4), torch.randn(2, 4, 1, 4, 4)
    table = schedule.alphas_cumprod()
    a = table[torch.tensor([10, 900])]
    noisy, v = unet_training.mix(latent, noise, a), unet_training.mix(noise, -latent, a)
    for i in range(2):
        x0, eps = schedule.predict(noisy[i], v[i], a[i])
        assert torch.allclose(x0, latent[i], atol=1e-4)
        assert torch.allclose(eps, noise[i], atol=1e-4)


def test_sampled_latents_depend_on_frames_and_texts():
    vae, unet = TemporalVAE(VAE).eval(), TemporalUNet(TRAINED_UNET)
    text = torch.randn(8, TRAINED_UNET.context_dim)
    clean, low_res = paired_batch(Waves(), np.random.default_rng(0), replace(BATCH, frames=2))

    @torch.no_grad()
    def sampled(pixels: Tensor, frames: Tensor, words: Tensor, steps: int = 1) -> Tensor:
        torch.manual_seed(1)
        latents = unet_training.sampled_latents(
            vae, unet, words, steps=(steps, steps), from_noise=0
        )
        return latents(pixels, frames, np.random.default_rng(4))

    first = sampled(clean, low_res, text)
    assert first.shape == (2, 4, 2, 8, 8)
    assert torch.equal(first, sampled(clean, low_res, text))
    assert not torch.allclose(first, sampled(clean, -low_res, text))
    assert not torch.allclose(first, sampled(clean, low_res, -text))
    # A late start has more of the clean clip in it than an early one.
    far, near = (
        (sampled(clean, low_res, text, steps) - sampled(-clean, low_res, text, steps)).abs().mean()
        for steps in (1, 20)
    )
    assert near > far
