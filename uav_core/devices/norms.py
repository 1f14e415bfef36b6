"""GroupNorm and SiLU with the channels last, where PyTorch's norm would copy to another layout.

The fastest method that the device has is used: Triton kernels, PyTorch's norm where it keeps the
layout, or a few plain operations.
"""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .abilities import is_complete
from .layers import GroupNorm
from .layout import by_channel, channels_last

log = logging.getLogger(__name__)


def serves(norm: nn.Module, x: Tensor) -> bool:
    """Whether ``normed`` may be used."""
    return isinstance(norm, GroupNorm) and may_fuse(x)


def may_fuse(x: Tensor) -> bool:
    """Whether operations on ``x`` may be computed here.

    Not with gradients or a compiler, which have better ways, nor on devices that may not compute
    in mixed precision.
    """
    return (
        is_complete(x.device)
        and x.ndim in (4, 5)
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def normed(norm: Any, x: Tensor, shift: Tensor | None = None, activate: bool = False) -> Tensor:
    """x + ``shift``, (c) or (b, c), normalised, or its SiLU.

    With a ``shift``, ``x`` may be overwritten.
    """
    x = channels_last(x)
    shift = None if shift is None else shift.expand(x.shape[:2])
    if has_kernels(x.device):
        weight, bias = norm.weights_for(x)
        try:
            return _kernels().normed(x, shift, weight, bias, norm.num_groups, norm.eps, activate)
        except Exception as error:  # Triton's compiler and the driver may raise anything
            _give_up(x.device, error)
    if shift is not None:
        x.add_(by_channel(shift, x))
    out = norm(x) if keeps_layout(x.device) else plain(x, norm)
    return F.silu(out, inplace=True) if activate else out


def joined(x: Tensor, onto: Tensor, bias: Tensor) -> Tensor:
    """x + ``onto`` + ``bias`` (c). ``x`` may be overwritten."""
    x, onto = channels_last(x), channels_last(onto)
    if has_kernels(x.device):
        try:
            return _kernels().joined(x, onto, bias)
        except Exception as error:  # Triton's compiler and the driver may raise anything
            _give_up(x.device, error)
    return x.add_(onto).add_(by_channel(bias, x))


def plain(x: Tensor, norm: GroupNorm) -> Tensor:
    """``x`` (b c ...), channels last, normalised by operations that every device has."""
    weight, bias = norm.weights_for(x)
    b, c, groups = x.shape[0], x.shape[1], norm.num_groups
    # A view: (b, positions, groups, channels of a group).
    grouped = x.movedim(1, -1).view(b, -1, groups, c // groups)
    if x.dtype == torch.bfloat16:
        # The root of the rounded variance: half as far off as the rounded root.
        variance, mean = torch.var_mean(grouped, (1, 3), correction=0, keepdim=True)
        spread = variance.float().sqrt_()
    else:
        # Not the variance: it passes the range of fp16 where values spread by 256.
        spread, mean = torch.std_mean(grouped, (1, 3), correction=0, keepdim=True)
    scale = weight.view(groups, -1) / torch.hypot(spread, _root(norm.eps, x.device))
    offset = torch.addcmul(bias.view(groups, -1), mean, scale, value=-1)
    out = torch.empty_like(grouped)
    # In fp32 until the result is rounded to the precision of `x`.
    torch.addcmul(offset, grouped, scale, out=out)
    return out.view(b, *x.shape[2:], c).movedim(-1, 1)


@functools.cache
def _root(eps: float, device: torch.device) -> Tensor:
    """The root of ``eps``, (1,), which makes results fp32; made once, as making it is a kernel."""
    return torch.full((1,), eps**0.5, dtype=torch.float32, device=device)


@functools.cache
def keeps_layout(device: torch.device) -> bool:
    """Whether PyTorch's own norm returns channels-last output for channels-last input."""
    x = channels_last(torch.ones(1, 8, 2, 2, 2, device=device))
    return F.group_norm(x, 4).is_contiguous(memory_format=torch.channels_last_3d)


_without: set[str] = set()
"""Devices for which the kernels have been given up."""


def has_kernels(device: torch.device) -> bool:
    """Whether the Triton kernels run on ``device`` with right results; tried once."""
    if device.type != "cuda" or str(device) in _without:
        return False
    return _are_right(device)


@functools.cache
def _are_right(device: torch.device) -> bool:
    try:
        _kernels().check(device)
    except Exception as error:  # Triton's compiler and the driver may raise anything
        _give_up(device, error)
        return False
    return True


def _give_up(device: torch.device, error: Exception) -> None:
    """Do without the kernels from now on; not if memory ran out, as that passes: then it raises."""
    if "out of memory" in str(error).lower():
        raise error
    _without.add(str(device))
    log.info(
        "Triton's kernels cannot be used on %s; plain operations are used instead: %s",
        device,
        error,
    )


def _kernels():
    """The module of Triton kernels. Raises ImportError without Triton."""
    from . import triton_norm

    return triton_norm
