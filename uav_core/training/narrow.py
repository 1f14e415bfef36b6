"""A temporal decoder with narrower layers at full size, where it spends most of its time.

Seven tenths of the included decoder's multiplications are in its layers at full size, so half their
channels give less than half of the total. Whole groups of the norms are left out, those that matter
least to the next layer, so that the statistics of the other groups do not change. The result gives
poor pictures; it is the start for training.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.layers import Resnet, groups
from ..models.vae import TemporalVAE


@torch.no_grad()
def narrow(vae: TemporalVAE, width: int) -> TemporalVAE:
    """``vae`` with ``width`` channels at full size in its decoder.

    ``vae`` does not change. Raises InputError for a width that is not smaller than the present one,
    or not a multiple of its norms' group size that keeps this group size.
    """
    old: Any = copy.deepcopy(vae.decoder)
    last, end = old.up_blocks[-1].resnets, old.conv_norm_out
    size = end.num_channels // end.num_groups
    if not 0 < width < end.num_channels or width % size or width // groups(width) != size:
        raise InputError(
            f"A decoder cannot have {width} channels at full size: expected fewer than "
            f"{end.num_channels}, in groups of {size}, such as {size * (end.num_groups // 2)}."
        )
    # All resnets add to the same channels, so these are chosen together; inner ones per resnet.
    weight = importance(end, old.conv_out)
    for resnet in list(last)[1:]:
        weight = weight + importance(resnet.norm1, resnet.conv1)
    stream = strongest(weight, width)
    for i, resnet in enumerate(last):
        _cut_resnet(resnet, None if i == 0 else stream, stream, width)
    _cut_norm(end, stream)
    _cut_conv(old.conv_out, into=stream)
    channels = (width, *(vae.params.decoder_channels or vae.params.channels)[1:])
    new = TemporalVAE(replace(vae.params, decoder_channels=channels))
    new.load_state_dict(
        {
            **{k: v for k, v in vae.state_dict().items() if not k.startswith("decoder.")},
            **{f"decoder.{k}": v for k, v in old.state_dict().items()},
        }
    )
    return new


def importance(norm: Any, after: Any) -> Tensor:
    """Contribution of each group of ``norm`` to the convolution after it; the mean is 1."""
    columns = after.weight.transpose(0, 1).flatten(1).norm(dim=1)
    of_groups = (columns * norm.weight.abs()).view(norm.num_groups, -1).sum(1)
    return of_groups / of_groups.mean()


def strongest(of_groups: Tensor, width: int) -> Tensor:
    """The ``width`` channels of the most important groups, in order.

    The norms before and after have the same number of channels, so the same groups.
    """
    size = width // groups(width)
    kept = of_groups.topk(width // size).indices.sort().values
    return (kept[:, None] * size + torch.arange(size, device=kept.device)).flatten()


def _cut_resnet(resnet: Resnet, into: Tensor | None, out: Tensor, width: int) -> None:
    inner = strongest(importance(resnet.norm2, resnet.conv2), width)
    if into is not None:
        _cut_norm(resnet.norm1, into)
    _cut_conv(resnet.conv1, into, inner)
    _cut_norm(resnet.norm2, inner)
    _cut_conv(resnet.conv2, inner, out)
    if resnet.conv_shortcut is not None:
        _cut_conv(resnet.conv_shortcut, into, out)
    if resnet.conv_3d is not None:
        _cut_norm(resnet.norm_3d, out)
        _cut_conv(resnet.conv_3d, out, out)


def _cut_norm(norm: Any, kept: Tensor) -> None:
    norm.weight, norm.bias = nn.Parameter(norm.weight[kept]), nn.Parameter(norm.bias[kept])


def _cut_conv(conv: Any, into: Tensor | None = None, out: Tensor | None = None) -> None:
    weight, bias = conv.weight, conv.bias
    if out is not None:
        weight, bias = weight[out], bias[out]
    if into is not None:
        weight = weight[:, into]
    conv.weight, conv.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
