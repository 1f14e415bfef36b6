"""Initial weights from which narrow networks learn fast.

A GroupNorm removes mean and spread from every group. The released networks have four or more
channels in a group, which preserve them. Small networks have two or three, and from random weights
they learn brightness and colour slowly. So the VAE starts as a plain resize: it shrinks and
enlarges the picture along the residual paths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.layers import Resnet
from ..models.unet import TemporalUNet
from ..models.vae import UPSCALE, TemporalVAE

ANCHOR = 2.0
"""A constant beside the picture in its group; it lets the picture's mean and spread pass norms."""
BRANCH = 0.1
"""Initial scale of the random branches beside the residual paths."""


@torch.no_grad()
def start_as_resize(vae: TemporalVAE, pictures: Tensor, gain: float = 2.0) -> None:
    """Set the weights of a ``vae_3d`` so that it shrinks by area and enlarges smoothly.

    Latent channels 0-2 become the mean colour times ``gain``; the others stay random.
    ``pictures`` (b, 3, 1, h, w) in [-1, 1] calibrate the last convolutions of encoder and decoder.
    """
    for module in vae.modules():
        if isinstance(module, Resnet):
            module.conv2.weight.mul_(BRANCH)
    encoder: Any = vae.encoder
    decoder: Any = vae.decoder
    for block in (encoder.mid_block, decoder.mid_block):
        block.attentions[0].proj_attn.weight.mul_(BRANCH)
    n = vae.params.latent_channels

    wide, top = encoder.conv_norm_out, decoder.conv_norm_out
    inner = [i * (wide.num_channels // wide.num_groups) for i in range(3)]
    outer = [i * (top.num_channels // top.num_groups) for i in range(3)]
    plain = [0, 1, 2]
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    mean = F.pad(torch.full((2, 2), 0.25), (0, 1, 0, 1))
    carry(encoder.conv_in, plain, plain)
    places = plain
    for level in encoder.down_blocks:
        places = _through(level, places, inner, mean)
    _anchor(encoder.mid_block.resnets[-1], places, wide)
    carry(decoder.conv_in, plain, plain)
    places = plain
    for level in decoder.up_blocks:
        places = _through(level, places, outer, torch.outer(binomial, binomial))
    _anchor(decoder.up_blocks[-1].resnets[-1], places, top)

    for conv in (vae.quant_conv, vae.post_quant_conv):
        conv.weight.copy_(torch.eye(len(conv.weight))[:, :, None, None])
        nn.init.zeros_(conv.bias)
    # A small variance, so that the noise of the posterior does not hide the mean.
    encoder.conv_out.weight[n:] = 0
    encoder.conv_out.bias[n:] = -4.0
    small = F.avg_pool3d(pictures, (1, UPSCALE, UPSCALE)) * gain
    _fit(encoder.conv_out, wide, small, lambda: encoder(pictures, vae.attend))
    z = vae.encode(pictures)
    carry(decoder.conv_in, plain, plain, 1 / gain)
    _fit(decoder.conv_out, top, pictures, lambda: vae.decode(z))


@torch.no_grad()
def start_unet(unet: TemporalUNet) -> None:
    """Give a narrow U-Net's last norm constants that keep the brightness of its prediction."""
    last: Any = unet.up_blocks[-1]
    norm = unet.conv_norm_out
    width = norm.num_channels // norm.num_groups
    if width > 1:
        last.resnets[-1].conv2.bias.view(-1, width)[:, -1] += ANCHOR / 2


def carry(conv: Any, sources: list[int], targets: list[int], taps: Tensor | float = 1.0) -> None:
    """Make a convolution map each source channel to its target through ``taps`` alone."""
    weight = conv.weight
    kernel = torch.zeros(weight.shape[2:])
    if isinstance(taps, Tensor):
        kernel.copy_(taps)
    else:
        kernel[tuple(side // 2 for side in kernel.shape)] = taps
    weight[targets] = 0
    conv.bias[targets] = 0
    for source, target in zip(sources, targets, strict=True):
        weight[target, source] = kernel


def _through(level: Any, places: list[int], wanted: list[int], taps: Tensor) -> list[int]:
    """Carry the picture through a level; returns its channels, ``wanted`` if the width changes."""
    for resnet in level.resnets:
        if resnet.conv_shortcut is not None:
            carry(resnet.conv_shortcut, places, wanted)
            places = wanted
    for change in (level.downsamplers, level.upsamplers):
        if change is not None:
            carry(change[0].conv, places, places, taps)
    return places


def _anchor(resnet: Any, places: list[int], norm: nn.GroupNorm) -> None:
    """Add a constant channel beside each colour, and a bias to the colours' norm."""
    width = norm.num_channels // norm.num_groups
    last = [place // width * width + width - 1 for place in places]
    resnet.conv2.bias[last] += ANCHOR
    # SiLU is nearly linear there.
    norm.bias[places] += 2.0


def _fit(conv: Any, norm: nn.GroupNorm, wanted: Tensor, run: Callable[[], Tensor]) -> None:
    """Set the middle taps of ``conv`` by least squares, so that its output is ``wanted``."""
    seen: list[Tensor] = []
    # A copy, as the next operation changes the norm's result in place.
    handle = norm.register_forward_hook(lambda *got: seen.append(got[-1].clone()))
    try:
        run()
    finally:
        handle.remove()
    features = F.silu(seen[0]).transpose(0, 1).flatten(1).T.double()
    features = torch.cat((features, torch.ones_like(features[:, :1])), dim=1)
    targets = wanted.transpose(0, 1).flatten(1).T.double()
    gram = features.T @ features
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    found = torch.linalg.solve(gram, features.T @ targets).float()
    rows, middle = targets.shape[1], conv.kernel_size[0] // 2
    conv.weight[:rows] = 0
    conv.weight[:rows, :, middle, middle] = found[:-1].T
    conv.bias[:rows] = found[-1]
