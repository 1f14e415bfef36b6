"""Training the temporal U-Net: v-prediction on the latents of clean clips.

After Stable Diffusion's x4 upscaler and section 3.1 of the paper: the noisy latent is concatenated
with the degraded frames, noised at a random level that is an input of the network.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.unet import TemporalUNet, UNetParams
from ..models.vae import LATENT_SCALE, TemporalVAE
from ..sampling import schedule
from ..sampling.ddim import VelocityDDIM
from ..sampling.propagation import propagate
from .data.batches import BatchParams, Source, paired_batch, poor
from .loop import LoopParams, Loss, autocast
from .temporal import Layers, choose_layers, temporal_bypassed

SMALL_UNET = UNetParams(
    channels=(96, 64, 64),
    resnets=1,
    attention=(False, True, True),
    text_only=(True, True, False),
    context_dim=48,
    heads=4,
    time_dim=128,
    trailing=True,
)
SMALL_TOKENS = 8


class TextEmbeddings(nn.Module):
    """The two text embeddings of a model without a text encoder, (tokens, dim) each.

    ``null_text_embedding`` stands for any text, ``negative_text_embedding`` for a text that names
    flaws. The latter is trained with poor pictures as the target, so that guidance away from it
    sharpens (after SUPIR, arXiv 2401.13627, section 3.3).
    """

    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.null_text_embedding = nn.Parameter(torch.randn(tokens, dim))
        self.negative_text_embedding = nn.Parameter(torch.randn(tokens, dim))


class UNetWithTexts(nn.Module):
    """The U-Net and its text embeddings, which are trained together."""

    def __init__(self, unet: TemporalUNet, texts: TextEmbeddings) -> None:
        super().__init__()
        self.unet, self.texts = unet, texts


def unet_loss(
    model: UNetWithTexts,
    vae: TemporalVAE,
    source: Source,
    batch: BatchParams,
    loop: LoopParams,
    layers: Layers = "all",
    learn_texts: bool = True,
    negative_share: float = 0.12,
) -> Loss:
    """The loss of the U-Net, with ``vae`` frozen; makes only the chosen layers trainable.

    ``negative_share`` of the clips have the negative text and a poor target, the others the null
    text.
    """
    choose_layers(model.unet, layers)
    model.texts.requires_grad_(learn_texts and layers != "temporal")
    vae.requires_grad_(False)
    table = schedule.alphas_cumprod().to(loop.device)

    def loss(rng: np.random.Generator) -> dict[str, Tensor]:
        clean, low_res = paired_batch(source, rng, batch)
        negative = torch.from_numpy(rng.random(len(clean)) < negative_share)
        for i in negative.nonzero().flatten().tolist():
            clean[i] = poor(clean[i], rng)
        clean, low_res, negative = (x.to(loop.device) for x in (clean, low_res, negative))
        with torch.no_grad(), autocast(loop):
            latent = vae.encode(clean).float() * LATENT_SCALE
        t = torch.from_numpy(rng.integers(0, schedule.TRAIN_STEPS, len(clean))).to(loop.device)
        level = torch.from_numpy(rng.integers(0, 251, len(clean))).to(loop.device)
        noise = torch.randn_like(latent)
        noised = mix(low_res, torch.randn_like(low_res), table[level])
        noisy, target = mix(latent, noise, table[t]), mix(noise, -latent, table[t])
        text = torch.where(
            negative[:, None, None],
            model.texts.negative_text_embedding,
            model.texts.null_text_embedding,
        )
        with autocast(loop), temporal_bypassed(model.unet, layers == "spatial"):
            v = model.unet(noisy, t, noised, text, level)
        return {"v": F.mse_loss(v.float(), target)}

    return loss


def mix(signal: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """sqrt(a) signal + sqrt(1 - a) noise, with one a for each clip of (b, c, t, h, w).

    With (latent, noise) it is the noisy latent, with (noise, -latent) the velocity v.
    """
    a = alpha.view(-1, *[1] * (signal.ndim - 1))
    return a.sqrt() * signal + (1 - a).sqrt() * noise


def encoded_latents(vae: TemporalVAE, noise: float) -> Callable[..., Tensor]:
    """Latents for decoder training: the encoder's, with noise of up to ``noise`` of their spread.

    They replace sampled latents while there is no U-Net yet.
    """

    def latents(clean: Tensor, low_res: Tensor, rng: np.random.Generator) -> Tensor:
        z = vae.encode(clean).float()
        return z + torch.randn_like(z) * rng.uniform(0, noise) / LATENT_SCALE

    return latents


def sampled_latents(
    vae: TemporalVAE,
    unet: TemporalUNet,
    text: Tensor,
    *,
    negative: Tensor | None = None,
    guidance: tuple[float, float] = (1.0, 1.0),
    steps: tuple[int, int] = (1, 4),
    from_noise: float = 0.5,
) -> Callable[..., Tensor]:
    """Latents for decoder training, sampled by the U-Net in a few DDIM steps.

    With them the decoder learns to correct errors of the U-Net by the frames. A share
    ``from_noise`` of the batches is sampled from noise alone, as in use. The others start at a
    random step, from the encoder's latent with that step's noise. Latents sampled from noise say
    no more about the clean clip than the frames do, so a decoder trained only on these would
    ignore the latents.
    """

    def latents(clean: Tensor, low_res: Tensor, rng: np.random.Generator) -> Tensor:
        level = int(rng.integers(20, 161))
        noised = schedule.noise_low_res(low_res, torch.randn_like(low_res), level)
        count, scale = int(rng.integers(steps[0], steps[1] + 1)), rng.uniform(*guidance)
        first = 0 if rng.random() < from_noise else int(rng.integers(count))
        times = schedule.timesteps(count, unet.params.trailing)
        table = schedule.alphas_cumprod()[times].to(clean.device)
        encoded = vae.encode(clean).float() * LATENT_SCALE
        start = mix(encoded, torch.randn_like(encoded), table[first].expand(len(clean)))
        sampled = sample_clips(
            unet, start, noised, level, text, count, first, negative=negative, guidance=scale
        )
        return sampled / LATENT_SCALE

    return latents


def sample_clips(
    unet: TemporalUNet,
    latent: Tensor,
    noised: Tensor,
    level: int,
    text: Tensor,
    steps: int,
    first: int = 0,
    *,
    negative: Tensor | None = None,
    guidance: float = 1.0,
    flows: tuple[Tensor, Tensor] | None = None,
    propagated: int = 0,
    gradient: bool = False,
) -> Tensor:
    """Sample a batch of short clips whole; ``pipeline.sample`` samples a long one in segments.

    Args:
        latent: (b, 4, t, h, w), where step ``first`` of ``steps`` starts.
        noised: (b, 3, t, h, w), the low-resolution frames with noise of ``level``.
        text, negative: (tokens, dim); the former also (b, tokens, dim).
        flows: forward and backward, each (b, 2, t - 1, h, w); the clean latents of the last
            ``propagated`` steps are propagated along them.
        gradient: whether the last pass has one.
    """
    b, device = len(latent), latent.device
    ddim = VelocityDDIM(steps, device, unet.params.trailing)
    levels = torch.full((b,), level, device=device)

    def predict(x: Tensor, time: int, words: Tensor) -> Tensor:
        times = torch.full((b,), time, device=device)
        return unet(x, times, noised, words.expand(b, -1, -1), levels).float()

    for i in range(first, steps):
        learns = gradient and i == steps - 1
        if learns:
            # The copies in half precision that passes without a gradient made have no gradient.
            torch.clear_autocast_cache()
        with torch.set_grad_enabled(learns):
            v = predict(latent, ddim.times[i], text)
            if negative is not None and guidance != 1:
                poorer = predict(latent, ddim.times[i], negative)
                v = poorer + guidance * (v - poorer)
            x0, eps = ddim.split(latent, v, i)
            if flows is not None and i >= steps - propagated:
                x0 = propagate(x0, *flows)
            latent = ddim.join(x0, eps, i)
    return latent
