"""A network in training: Adam, limited gradients, averaged weights, and a small saved state.

The state takes three bytes per parameter: the parameter in half precision, and the logarithm of
the root of Adam's second moment in one byte. The first moment starts from zero again, as it only
covers about ten steps. After saving, the run itself continues from the saved state, so that a
resumed run gives the same result as one without a stop.
"""

# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ...files import save_tensors

TAMED = 3.0
"""Largest norm of a gradient, in multiples of the usual norm."""
EPS = 1e-8


class Learner:
    """Parameters by name, and their optimiser.

    ``step`` counts the steps of all runs.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        betas: tuple[float, float],
        buffers: Mapping[str, Tensor] | None = None,
        decay: float | None = None,
    ) -> None:
        self.named = dict(parameters)
        self.live: list[Any] = list(self.named.values())
        self.buffers, self.betas, self.decay = dict(buffers or {}), betas, decay
        self.step = 0
        self.first = [torch.zeros_like(p) for p in self.live]
        self.second = [torch.zeros_like(p) for p in self.live]
        self.usual: Tensor | None = None
        self.average: list[Any] = []
        self.averaged = 0
        self.restart_average()

    # ------------------------------------------------------------ steps

    @torch.no_grad()
    def update(self, rate: float) -> Tensor:
        """Make a step of Adam and clear the gradients. Returns their norm.

        A gradient that is not finite adds nothing; one far above the usual norm is scaled down.
        Nothing here waits for the device.
        """
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.live]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        fine = torch.isfinite(norm)
        usual = torch.where(fine, norm, torch.ones_like(norm)) if self.usual is None else self.usual
        # Limited, so that one bad gradient changes the usual norm only a little.
        nearer = torch.lerp(usual, torch.minimum(norm, 2 * usual), 0.05)
        self.usual = torch.where(fine, nearer, usual)
        factor = torch.clamp(TAMED * usual / (norm + 1e-12), max=1.0)
        torch._foreach_mul_(grads, torch.where(fine, factor, torch.zeros_like(norm)))
        for grad in grads:
            grad.nan_to_num_(0.0, 0.0, 0.0)
        self.step += 1
        a, b = self.betas
        torch._foreach_lerp_(self.first, grads, 1 - a)
        torch._foreach_mul_(self.second, b)
        torch._foreach_addcmul_(self.second, grads, grads, 1 - b)
        below = torch._foreach_sqrt(self.second)
        torch._foreach_div_(below, (1 - b**self.step) ** 0.5)
        torch._foreach_add_(below, EPS)
        torch._foreach_addcdiv_(self.live, self.first, below, -rate / (1 - a**self.step))
        self.clear()
        if self.decay is not None:
            self.averaged += 1
            weight = 1 - min(self.decay, (1 + self.averaged) / (10 + self.averaged))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.live], weight)
        return norm

    def clear(self) -> None:
        """Clear the gradients."""
        for p in self.live:
            p.grad = None

    # ------------------------------------------------------------ the average

    @torch.no_grad()
    def restart_average(self) -> None:
        """Restart the average from the current parameters."""
        self.averaged = 0
        if self.decay is not None:
            self.average = [p.detach().clone() for p in self.live]

    def averages(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        return dict(zip(self.named, self.average, strict=True))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange parameters and averages."""
        for p, kept in zip(self.live, self.average, strict=True):
            held = p.detach().clone()
            p.copy_(kept)
            kept.copy_(held)

    # ------------------------------------------------------------ between runs

    @torch.no_grad()
    def pack(self) -> dict[str, Tensor]:
        """The state to save, on the CPU."""
        kept: dict[str, Tensor] = {}
        bounds = []
        for (name, p), second in zip(self.named.items(), self.second, strict=True):
            root = second.sqrt().clamp_min(1e-15).log2()
            low, high = root.aminmax()
            bounds.append(torch.stack((low, high)))
            code = (root - low) / (high - low).clamp_min(1e-6) * 255
            kept[f"{name}/second"] = code.round().byte().cpu().contiguous()
            kept[f"{name}/value"] = p.detach().half().cpu().contiguous()
        kept["bounds"] = torch.stack(bounds).cpu()
        usual = torch.zeros(()) if self.usual is None else self.usual
        kept["usual"] = usual.float().cpu()
        kept["step"] = torch.tensor(self.step)
        for name, value in self.buffers.items():
            kept[f"{name}/buffer"] = value.detach().cpu().clone()
        return kept

    @torch.no_grad()
    def unpack(self, kept: Mapping[str, Tensor]) -> None:
        """Restore a state from ``pack``."""
        for i, (name, p) in enumerate(self.named.items()):
            low, high = kept["bounds"][i].tolist()
            code = kept[f"{name}/second"].to(p.device).float() / 255
            root = torch.exp2(code * (high - low) + low)
            self.second[i].copy_(root.square() * (root > 2e-15))
            p.copy_(kept[f"{name}/value"])
            self.first[i].zero_()
        for name, value in self.buffers.items():
            value.copy_(kept[f"{name}/buffer"])
        usual = kept["usual"].to(self.live[0].device)
        self.usual = usual if usual > 0 else None
        self.step = int(kept["step"])


def write_state(path: Path, packed: Mapping[str, Mapping[str, Tensor]], facts: dict) -> None:
    """Save learners' states and the place in the run."""
    tensors = {f"{who}:{name}": x for who, kept in packed.items() for name, x in kept.items()}
    save_tensors(path, tensors, {"facts": json.dumps(facts)})


def read_state(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """Read a file of ``write_state``: the learners' states and the place in the run."""
    packed: dict[str, dict[str, Tensor]] = {}
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
        for key in file.keys():  # noqa: SIM118  # not a dict
            who, name = key.split(":", 1)
            packed.setdefault(who, {})[name] = file.get_tensor(key)
    return packed, facts
