"""Training the VAEs: first the per-frame one, then the temporal decoder that uses the input.

After the paper (section 3.3 and its supplement): the decoder gets 3-D convolutions and is
conditioned on the low-resolution frames, while encoder and latent stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import per_frame
from ..models.vae import LATENT_SCALE, TemporalVAE, VAEParams
from .data.batches import BatchParams, Source, clean_batch, paired_batch
from .loop import LoopParams, Loss, autocast
from .losses import gradient_loss, kl_loss

SMALL_VAE = VAEParams(channels=(96, 64, 96), resnets=1, temporal=False)
SMALL_CONDITION = 64

Latents = Callable[[Tensor, Tensor, np.random.Generator], Tensor]


@dataclass(frozen=True)
class VAELoss:
    """Weights of the parts of the loss; the mean absolute error has weight 1."""

    gradient: float = 0.5
    kl: float = 2e-3


def moments(vae: TemporalVAE, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the latent distribution of pixels (b, 3, t, 4h, 4w)."""
    both = per_frame(vae.quant_conv, vae.encoder(pixels, vae.attend))
    mean, logvar = both.chunk(2, dim=1)
    return mean, logvar.clamp(-30, 20)


def vae_loss(
    vae: TemporalVAE, source: Source, batch: BatchParams, weights: VAELoss, loop: LoopParams
) -> Loss:
    """The loss of a per-frame VAE's encoder and decoder, trained together on clean frames."""

    def loss(rng: np.random.Generator) -> dict[str, Tensor]:
        clean = clean_batch(source, rng, batch).to(loop.device)
        with autocast(loop):
            mean, logvar = moments(vae, clean)
            mean, logvar = mean.float(), logvar.float()
            z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
            out = vae.decode(z).float()
        return {"kl": weights.kl * kl_loss(mean, logvar), **likeness(out, clean, weights)}

    return loss


def decoder_loss(
    vae: TemporalVAE,
    source: Source,
    batch: BatchParams,
    weights: VAELoss,
    loop: LoopParams,
    latents: Latents,
) -> Loss:
    """The loss of the temporal decoder alone, on ``latents`` and the degraded frames.

    ``latents(clean, low_res, rng)`` gives (b, 4, t, h, w), already divided by the latent scale.
    """
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def loss(rng: np.random.Generator) -> dict[str, Tensor]:
        clean, low_res = (x.to(loop.device) for x in paired_batch(source, rng, batch))
        with torch.no_grad(), autocast(loop):
            z = latents(clean, low_res, rng).float()
        with autocast(loop):
            out = vae.decode(z, low_res).float()
        return likeness(out, clean, weights)

    return loss


def likeness(out: Tensor, clean: Tensor, weights: VAELoss) -> dict[str, Tensor]:
    """The parts of a loss that compare pixels."""
    return {
        "l1": F.l1_loss(out, clean),
        "gradient": weights.gradient * gradient_loss(out, clean),
    }


def with_temporal_decoder(vae: TemporalVAE, condition_channels: int) -> TemporalVAE:
    """A ``vae_video`` that starts as the given ``vae_3d``.

    The new residual paths end in zero weights, so that before training they have no effect.
    """
    params = replace(vae.params, temporal=True, condition_channels=condition_channels)
    new = TemporalVAE(params)
    for name, module in new.decoder.named_modules():
        last = name.endswith("conv_3d") or name in ("condition_fuse.scale", "condition_fuse.shift")
        # Layers of condition_in are not zeroed, as otherwise no gradient would reach them.
        if last and isinstance(module, (nn.Conv2d, nn.Conv3d)) and "condition_in" not in name:
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    new.load_state_dict(vae.state_dict(), strict=False)
    return new


@torch.no_grad()
def normalise_latent(
    vae: TemporalVAE, source: Source, batch: BatchParams, *, batches: int = 32, seed: int = 1
) -> None:
    """Give every latent channel mean 0 and variance 1 after the latent scale.

    The encoder's last convolution is scaled and shifted, and the decoder's first one compensates.
    So the function of the whole VAE does not change.
    """
    rng = np.random.default_rng(seed)
    device = vae.quant_conv.weight.device
    means = [vae.encode(clean_batch(source, rng, batch).to(device)) for _ in range(batches)]
    z = torch.cat(means).transpose(0, 1).flatten(1)
    mean, std = z.mean(dim=1), z.std(dim=1)
    gain = 1 / (std * LATENT_SCALE)
    n, conv, back = len(mean), vae.quant_conv, vae.post_quant_conv
    assert conv.bias is not None and back.bias is not None
    conv.weight[:n] *= gain[:, None, None, None]
    conv.bias[:n] = (conv.bias[:n] - mean) * gain
    conv.bias[n:] += 2 * gain.log()
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight /= gain[None, :, None, None]
