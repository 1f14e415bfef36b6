"""Networks that judge the decoder's pictures: fixed features, and a critic that learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

FEATURES = Path(__file__).parent / "percept.safetensors"
"""Weights of the first layers of EfficientNet-Lite0; docs/training.md names author and licence."""


class Features(nn.Module):
    """The first layers of EfficientNet-Lite0, with the norms folded into the convolutions."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in load_file(FEATURES).items():
            self.register_buffer(name.replace(".", "_"), value.float())

    def _conv(
        self, x: Tensor, name: str, stride: int = 1, groups: int = 1, act: bool = True
    ) -> Tensor:
        weight, bias = getattr(self, f"{name}_w"), getattr(self, f"{name}_b")
        k = weight.shape[-1]
        if stride == 2:  # TensorFlow's padding, which the weights were trained with
            low = (k - 2) // 2
            x = F.pad(x, (low, k - 2 - low, low, k - 2 - low))
            y = F.conv2d(x, weight, bias, 2, 0, 1, groups)
        else:
            y = F.conv2d(x, weight, bias, 1, k // 2, 1, groups)
        return F.relu6(y) if act else y

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of pictures (n, 3, h, w) in [-1, 1], from four layers."""
        found = []
        x = self._conv(x, "stem", 2)
        found.append(x)
        x = self._conv(self._conv(x, "b0_dw", 1, 32), "b0_project", act=False)
        for i, stride in ((1, 2), (2, 1), (3, 2), (4, 1)):
            y = self._conv(x, f"b{i}_expand")
            if i != 2:
                found.append(y)
            y = self._conv(y, f"b{i}_dw", stride, y.shape[1])
            y = self._conv(y, f"b{i}_project", act=False)
            x = x + y if i in (2, 4) else y
        return found


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Squared distance of features whose channels are scaled to unit length, as in LPIPS."""
    total = a[0].new_zeros((), dtype=torch.float32)
    for x, y in zip(a, b, strict=True):
        x, y = (
            v.float() * torch.rsqrt(v.float().square().sum(1, keepdim=True) + 1e-2) for v in (x, y)
        )
        total = total + (x - y).square().sum(1).mean()
    return total


class Spectral(nn.Module):
    """A convolution with spectral norm: its weights are divided by their largest gain."""

    u: Tensor

    def __init__(self, cin: int, cout: int, k: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(cout, cin, k, k))
        nn.init.kaiming_normal_(self.weight, 0.2)
        self.register_buffer("u", F.normalize(torch.randn(cout), dim=0))
        self.bias = nn.Parameter(torch.zeros(cout))
        self.stride = stride
        self.now: tuple[Tensor, Tensor] | None = None

    def prepare(self, learns: bool) -> None:
        """Compute the weights for the next passes; with ``learns`` they get gradients."""
        weight, bias = self.weight, self.bias
        if not learns:
            weight, bias = weight.detach(), bias.detach()
        rows = weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(rows.t() @ self.u, dim=0)
            gained = rows @ v
            if learns:
                self.u.copy_(F.normalize(gained, dim=0))
            u = self.u.clone()
        self.now = weight / (u @ (rows @ v)), bias

    def forward(self, x: Tensor) -> Tensor:
        assert self.now is not None
        return F.conv2d(x, *self.now, self.stride, 1)


class Critic(nn.Module):
    """A U-Net that judges every pixel of three frames in a row, after Real-ESRGAN's."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        n = width
        down = [(9, n, 3, 1), (n, 2 * n, 4, 2), (2 * n, 4 * n, 4, 2), (4 * n, 8 * n, 4, 2)]
        up = [(8 * n, 4 * n), (4 * n, 2 * n), (2 * n, n), (n, n), (n, 1)]
        self.down = nn.ModuleList([Spectral(*sizes) for sizes in down])
        self.up = nn.ModuleList([Spectral(*sizes, 3) for sizes in up])

    def prepare(self, learns: bool) -> None:
        """Compute all weights for the next passes."""
        with torch.autocast(self.down[0].u.device.type, enabled=False):  # type: ignore[union-attr]
            for conv in (*self.down, *self.up):
                conv.prepare(learns)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        """Judge frames (n, 9, h, w), with three frames as channels: (n, 1, h, w)."""
        held = []
        for conv in self.down:
            x = F.leaky_relu(conv(x), 0.2)
            held.append(x)
        for conv, beside in zip(self.up[:3], held[2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = F.leaky_relu(conv(x), 0.2) + beside
        return self.up[4](F.leaky_relu(self.up[3](x), 0.2)).float()


def stacked(x: Tensor, start: int, count: int) -> Tensor:
    """(b, 3, t, h, w) as (b count, 9, h, w): three frames in a row, or a single one repeated."""
    b, _, t, h, w = x.shape
    if t < 3:
        return x[:, :, 0].repeat(1, 3, 1, 1)
    part = x[:, :, start : start + 3 * count].transpose(1, 2).reshape(b, count, 9, h, w)
    return part.flatten(0, 1).contiguous(memory_format=torch.channels_last)
