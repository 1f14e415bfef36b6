"""The temporal layers of the U-Net, and how to train or run it without them.

The paper trains the temporal layers on a frozen image upscaler (section 3.2). With them bypassed,
the network is that image upscaler; frames then share only the normalisation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..models.attention import Attention
from ..models.blocks import Transformer
from ..models.layers import Resnet
from ..models.temporal import Moments, StageModule, TemporalAttention, rotate
from ..models.unet import TemporalUNet

Layers = Literal["all", "spatial", "temporal"]

_TEMPORAL_PARTS = (
    ".resblock_temporal.",
    ".attn_temporal.",
    ".norm_temporal.",
    "down_temp_blocks.",
    "mid_temp_block.",
    "up_temp_blocks.",
)


def is_temporal(name: str) -> bool:
    """Whether a parameter belongs to the layers that the video model adds."""
    return any(part in name for part in _TEMPORAL_PARTS)


def choose_layers(unet: TemporalUNet, layers: Layers) -> None:
    """Make only the chosen layers trainable."""
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(layers == "all" or is_temporal(name) == (layers == "temporal"))


def silence_temporal(unet: TemporalUNet) -> None:
    """Zero the last weights of every temporal path, so that it adds nothing yet.

    So training of the temporal layers starts from exactly the image upscaler.
    """
    for module in unet.modules():
        last: Any
        if isinstance(module, StageModule):
            last = module.shift_conv
        elif isinstance(module, TemporalAttention):
            last = module.to_out[0]
        elif isinstance(module, Transformer):
            last = module.resblock_temporal.conv2
        else:
            continue
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)


@contextmanager
def temporal_bypassed(unet: TemporalUNet, bypassed: bool = True) -> Iterator[None]:
    """Context in which ``unet`` runs without its temporal layers (about half of the time)."""
    replaced: dict[nn.Module, Callable[..., Any]] = {}
    for module in unet.modules() if bypassed else ():
        if isinstance(module, StageModule):
            replaced[module] = lambda x, time: x
        elif isinstance(module, TemporalAttention):
            replaced[module] = lambda x, buckets, attend: x.new_zeros(())
        elif isinstance(module, Transformer):
            replaced[module.resblock_temporal] = lambda x, time=None: x
    for module, forward in replaced.items():
        _replace_forward(module, forward)
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


def _replace_forward(module: nn.Module, forward: Callable[..., Any]) -> None:
    module.forward = forward


def save_memory(model: nn.Module) -> None:
    """Recompute activations of resnets and transformers in the backward pass, to save memory.

    For full-size training on one GPU: about a third more time for a fraction of the memory.
    """
    for module in model.modules():
        if isinstance(module, (Resnet, Transformer)):
            _replace_forward(module, partial(_recomputed, module.forward))


def norms_in_plain_layout(model: nn.Module) -> None:
    """Make GroupNorms use contiguous memory, for training on a CPU.

    PyTorch's backward pass of a channels-last GroupNorm is several times slower there, and crashes
    (2.13) where the input needs no gradient but the weight does.
    """
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            _replace_forward(module, partial(_plain_group_norm, module))


def attention_of_batches(model: nn.Module) -> None:
    """Make temporal attention process all clips of a batch at once, by plain products.

    For training on a GPU, where a batch has many short clips: clip by clip the GPU would wait for
    kernel launches. This copies the tokens, which the normal way does not.
    """
    for module in model.modules():
        if isinstance(module, TemporalAttention):
            _replace_forward(module, partial(_attend_in_batches, module))


def _attend_in_batches(
    layer: TemporalAttention, x: Tensor, moments: Moments, attend: Attention
) -> Tensor:
    b, t, n, c = x.shape
    q, k, v = (
        y.unflatten(-1, (layer.heads, -1)) for y in (layer.to_q(x), layer.to_k(x), layer.to_v(x))
    )
    turn = moments.turn(layer.rotary_emb.freqs, q)
    q, k, v = (y.permute(0, 2, 3, 1, 4) for y in (rotate(q, *turn), rotate(k, *turn), v))
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    scores = scores + layer.time_rel_pos_bias(moments.buckets, scores)[:, None]
    out = torch.matmul(scores.softmax(-1).to(v.dtype), v)
    return layer.to_out[0](out.permute(0, 3, 1, 2, 4).reshape(b, t, n, c))


def _plain_group_norm(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():  # inference
        return type(norm).forward(norm, x)
    layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
    out = F.group_norm(x.contiguous(), norm.num_groups, norm.weight, norm.bias, norm.eps)
    return out.contiguous(memory_format=layout)


def _recomputed(forward: Callable[..., Tensor], *args: Any) -> Tensor:
    if not torch.is_grad_enabled():
        return forward(*args)
    return checkpoint(forward, *args, use_reentrant=False)
