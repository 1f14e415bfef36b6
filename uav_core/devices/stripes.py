"""Norm, SiLU and convolution in stripes of rows, so that only a stripe's activations exist.

A layer run whole holds its input, the normalised input and its result. In stripes the normalised
input is a few rows in a buffer. A result may overwrite the tensor it was computed from, as the
buffer keeps the rows that the next stripe still needs. The numbers are the same to rounding: the
norm's statistics are computed first, over the whole tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import abilities as devices
from . import winograd
from .layers import GroupNorm, Lending, kept
from .layout import per_frame

ROWS = 3
"""The axis of b c t h w that is cut."""
MOST_STRIPES = 32
PIECE = 512
"""Positions whose mean is summed in fp32: few enough to be as exact as the whole layer."""
LEAST_ROWS = 4
LEAST_POSITIONS = 3072
"""Positions (b t h w) that a stripe needs for Winograd's convolution to pay."""
Fill = Callable[[Tensor, int, int], None]
"""fill(target, first, stop): write rows ``first`` to ``stop`` of a layer's input to ``target``."""


def are_possible(x: Tensor) -> bool:
    """Whether ``x`` (b c t h w) can be cut: it is tall enough, without gradients or compiler."""
    return (
        x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and x.shape[ROWS] > LEAST_ROWS
    )


def serves(layer: nn.Module) -> bool:
    """Whether the convolutions of ``layer`` lend their weights."""
    return all(conv.lends for conv in layer.modules() if isinstance(conv, Lending))


def blank(like: Tensor, *shape: int) -> Tensor:
    """An uninitialised tensor with the channels last."""
    layout = torch.channels_last_3d
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def stripes(height: int, least: int = 0, tile: int = 1) -> Iterator[tuple[int, int]]:
    """(first, stop) of every stripe: ``least`` rows or more, in multiples of ``tile`` rows."""
    rows = max(least, LEAST_ROWS, -(-height // MOST_STRIPES))
    rows += -rows % tile
    for first in range(0, height, rows):
        yield first, min(first + rows, height)


def activation(norm: GroupNorm, x: Tensor) -> Fill:
    """A Fill with SiLU(norm(x)) of the rows of ``x`` (b c t h w).

    The statistics are those of ``x`` at this call, even if ``x`` is overwritten later.
    """
    scale, shift = scale_and_shift(norm, x)

    def fill(target: Tensor, first: int, stop: int) -> None:
        rows = x[:, :, :, first:stop]
        if x.dtype == torch.float32:
            torch.addcmul(shift, rows, scale, out=target)
            F.silu(target, inplace=True)
        else:
            # In fp32 until the result is rounded, as in the whole layers.
            target.copy_(F.silu(torch.addcmul(shift, rows.float(), scale), inplace=True))

    return fill


def doubled(x: Tensor) -> Fill:
    """A Fill with the rows of ``x`` enlarged to twice its sides by repetition."""

    def fill(target: Tensor, first: int, stop: int) -> None:
        rows = x[:, :, :, torch.arange(first, stop, device=x.device) // 2]
        target[..., 0::2] = rows
        target[..., 1::2] = rows

    return fill


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics of ``x`` (b c t h w) for a norm, on its device and in that device's widest float.

    Returns the means (k, b, c) of k parts, the sums of squares about them, and the positions
    (k, 1, 1) in each.
    """
    return moments_of_pieces(x) if x.device.type == "cpu" else moments_of_stripes(x)


def moments_of_stripes(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``moments`` in few calls."""
    means, squares = [], []
    spans = list(stripes(x.shape[ROWS]))
    for first, stop in spans:
        rows = x[:, :, :, first:stop].permute(0, 2, 3, 4, 1).flatten(1, 3).float()
        means.append(rows.mean(1))
        squares.append((rows - means[-1][:, None]).square_().sum(1))
    row, (begin, end) = x.shape[2] * x.shape[4], spans[-1]
    count = _counts(x, 1, len(spans), row * spans[0][1], row * (end - begin))
    wide = count.dtype
    return torch.stack(means).to(wide), torch.stack(squares).to(wide), count


def moments_of_pieces(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``moments`` by batch norm's statistics: on a CPU several times faster, without a copy."""
    c, t, h, w = x.shape[1:]
    each = -(-h * w // PIECE)
    count = _counts(x, t, each, PIECE, h * w - (each - 1) * PIECE)
    clips = []
    for clip in x:
        frames = (clip[:, i].movedim(0, -1).reshape(-1, c) for i in range(t))
        pieces = (piece for frame in frames for piece in frame.split(PIECE))
        parts = [torch.batch_norm_update_stats(p.float(), None, None, 0.0) for p in pieces]
        clips.append([torch.stack(values).to(count) for values in zip(*parts, strict=True)])
    means, variances = (torch.stack(values, dim=1) for values in zip(*clips, strict=True))
    return means, variances * count, count


def _counts(x: Tensor, runs: int, each: int, usual: int, last: int) -> Tensor:
    """(runs * each, 1, 1): ``usual``, and ``last`` at the end of every run.

    The tensor is filled on the device, as a list of numbers would have to be copied there.
    """
    wide = devices.widest_float(x.device)
    count = torch.full((runs * each, 1, 1), float(usual), dtype=wide, device=x.device)
    count[each - 1 :: each] = last
    return count


def scale_and_shift(norm: GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """The factor and the offset that a GroupNorm applies to ``x``, (b, c, 1, 1, 1) fp32 each."""
    groups, c = norm.num_groups, x.shape[1]
    # The parts are joined (Chan, Golub & LeVeque 1979) in float64 where the device has it. In fp32
    # this is as exact as the whole layer: it sums spreads and never subtracts squares.
    mean, inner, count = moments(x)
    n = x.shape[2] * x.shape[3] * x.shape[4] * (c // groups)

    def by_group(values: Tensor) -> Tensor:
        return values.unflatten(-1, (groups, c // groups)).sum(-1, keepdim=True)

    centre = by_group((mean * count).sum(0)) / n
    spread = mean - centre.expand(-1, -1, c // groups).flatten(-2)
    variance = by_group((inner + count * spread.square()).sum(0)) / n
    weight, bias = (values.to(count.dtype) for values in norm.weights_for(x))
    rate = (variance + norm.eps).rsqrt().expand(-1, -1, c // groups).flatten(-2)
    scale = weight * rate
    shift = bias - centre.expand(-1, -1, c // groups).flatten(-2) * scale
    return scale.float()[..., None, None, None], shift.float()[..., None, None, None]


class Plain:
    """A plain convolution of rows, 3x3 or 3x3x3."""

    border = 0
    """Columns of zeros to the left of its input."""
    least_rows, tile = 0, 1

    def __init__(self, weight: Tensor, bias: Tensor | None, onto: bool) -> None:
        self.taps = [weight] if weight.ndim == 4 else [w.contiguous() for w in weight.unbind(2)]
        self.bias, self.onto = bias, onto

    def padded(self, rows: int, width: int) -> tuple[int, int]:
        """Height and width of the padded input for ``rows`` of output."""
        return rows + 2, width

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """Convolve padded rows ``x`` (b c t h w) into ``out``, zeros beyond sides and clip ends."""
        b, t = x.shape[0], x.shape[2]

        def frames(first: int, stop: int, tap: Tensor, bias: Tensor | None = None) -> Tensor:
            flat = x[:, :, first:stop].transpose(1, 2).flatten(0, 1)
            result = F.conv2d(flat, tap, bias, padding=(0, 1))
            return result.unflatten(0, (b, stop - first)).transpose(1, 2)

        now = self.taps[len(self.taps) // 2]
        if self.onto:
            out += frames(0, t, now, self.bias)
        else:
            out.copy_(frames(0, t, now, self.bias))
        if len(self.taps) == 3 and t > 1:
            out[:, :, 1:] += frames(0, t - 1, self.taps[0])
            out[:, :, :-1] += frames(1, t, self.taps[2])


class Winograd:
    """A 3x3 convolution of rows, frame by frame, by Winograd's method."""

    border = 1
    tile = winograd.OUTPUTS

    def __init__(self, weight: Tensor, bias: Tensor | None, positions: int) -> None:
        """``positions``: the number (b t w) in one row."""
        self.taps, self.bias = winograd.by_column(weight), bias
        self.least_rows = -(-LEAST_POSITIONS // positions)

    def padded(self, rows: int, width: int) -> tuple[int, int]:
        """Height and width of the padded input for ``rows`` of output."""
        return winograd.padded_size(rows), winograd.padded_size(width)

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """Convolve padded rows ``x`` (b c t h w) into ``out``."""
        # These must be views: a result written to a copy of `out` would be lost.
        frames, results = (
            y.permute(0, 2, 3, 4, 1).view(-1, *y.shape[3:], y.shape[1]) for y in (x, out)
        )
        winograd.convolve(frames, self.taps, self.bias, results)


def convolve(
    conv: Lending,
    fill: Fill,
    out: Tensor,
    channels: int,
    *,
    onto: bool = False,
    rest: Callable[[int, int], Tensor] | None = None,
) -> Tensor:
    """A 3x3 (per frame) or 3x3x3 convolution of what ``fill`` gives, written to ``out``.

    ``channels`` is the number in the input. ``onto`` adds to what ``out`` (b c t h w) holds;
    ``rest(first, stop)`` gives rows to add too. ``out`` may be the tensor that ``fill`` reads.
    """
    b, _, t, height, width = out.shape

    def work(weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.ndim == 4 and not onto and winograd.serves(out, channels):
            kernel = Winograd(weight, bias, b * t * width)
        else:
            kernel = Plain(weight, bias, onto)
        spans = list(stripes(height, kernel.least_rows, kernel.tile))
        tall, wide = kernel.padded(spans[0][1], width)
        whole = blank(out, b, channels, t, tall, wide)
        buffer = whole[..., kernel.border : kernel.border + width]
        whole[:, :, :, 0] = 0
        whole[..., : kernel.border] = whole[..., kernel.border + width :] = 0
        filled = last = 0
        for first, stop in spans:
            # Rows first - 1 to stop + 1: row r of the picture is row r - first + 1 of the buffer.
            if first:
                buffer[:, :, :, :2] = buffer[:, :, :, last - 1 : last + 1]
            last = stop - first + 1
            ahead = min(stop + 1, height)
            if ahead > filled:
                fill(buffer[:, :, :, filled - first + 1 : ahead - first + 1], filled, ahead)
            if stop == height:
                buffer[:, :, :, last:] = 0
            filled = ahead
            rows = out[:, :, :, first:stop]
            kernel(whole[:, :, :, : kernel.padded(stop - first, width)[0]], rows)
            if rest is not None:
                rows += rest(first, stop)
        return out

    return conv.lend(work, out)


def resnet(layer: Any, x: Tensor, shift: Tensor | None) -> Tensor:
    """A ``Resnet`` of 3x3 convolutions that holds only its input and one tensor for the result.

    ``shift`` (b, c) is added between its convolutions.
    """
    b, cin, t, height, width = x.shape
    cout = layer.conv1.out_channels
    out = blank(x, b, cout, t, height, width)

    def shortcut(first: int, stop: int) -> Tensor:
        rows = x[:, :, :, first:stop]
        return per_frame(lambda y: F.conv2d(y, *weights), rows) if weights else rows

    # Taken once and kept, as their rows are computed while another layer lends its weights.
    own = layer.conv_shortcut
    weights = () if own is None else own.lend(lambda *given: tuple(map(kept, given)), x)
    convolve(layer.conv1, activation(layer.norm1, x), out, cin)
    if shift is not None:
        out += shift[:, :, None, None, None]
    convolve(layer.conv2, activation(layer.norm2, out), out, cout, rest=shortcut)
    if layer.conv_3d is not None:
        convolve(layer.conv_3d, activation(layer.norm_3d, out), out, cout, onto=True)
    return out


def enlarged(conv: Lending, x: Tensor) -> Tensor:
    """A 3x3 convolution of ``x`` (b c t h w) enlarged to twice its sides."""
    b, c, t, h, w = x.shape
    return convolve(conv, doubled(x), blank(x, b, c, t, 2 * h, 2 * w), c)
