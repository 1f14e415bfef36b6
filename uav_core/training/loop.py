"""The training loop: seeded steps, averaged weights, checkpoints that resume exactly, curves."""

from __future__ import annotations

import copy
import csv
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from .curves import draw_curves

log = logging.getLogger(__name__)

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
STATE, LOSSES, CURVES = "state.pt", "losses.csv", "curves.png"


@dataclass(frozen=True)
class LoopParams:
    """Training parameters. All but the last three change the result."""

    steps: int
    lr: float = 3e-4
    warmup: int = 50
    """Steps of rising learning rate; afterwards it falls as a cosine to a hundredth."""
    seed: int = 0
    ema: float = 0.998
    """Decay of the averaged weights, which are the result of the run."""
    clip: float = 1.0
    """Largest norm of the gradient; larger gradients are scaled down to it."""
    accumulate: int = 1
    """Batches whose gradients are averaged for one step."""
    precision: Precision = "bf16"
    device: str = "cpu"
    save_every: int = 200
    log_every: int = 25

    def __post_init__(self) -> None:
        """Raise InputError for numbers below 1."""
        for name in ("steps", "accumulate", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: expected 1 or more.")


Loss = Callable[[np.random.Generator], dict[str, Tensor]]
"""loss(rng): the named parts of the loss, whose sum is minimised."""


def step_rng(seed: int, step: int, part: int = 0) -> np.random.Generator:
    """The random numbers of one step, the same whenever the step is run."""
    return np.random.default_rng([seed, step, part])


def learning_rate(step: int, params: LoopParams) -> float:
    """Linear warm-up, then a cosine from ``lr`` to ``lr / 100``."""
    if step < params.warmup:
        return params.lr * (step + 1) / params.warmup
    share = (step - params.warmup) / max(1, params.steps - params.warmup)
    return params.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


class Loop:
    """Trains a network; the run's folder has ``state.pt``, ``losses.csv`` and ``curves.png``.

    A stopped run resumes from its last checkpoint and gives the result of a run without a stop, as
    random numbers depend on the step alone. Only non-deterministic kernels can make a difference.
    """

    def __init__(self, folder: Path, module: nn.Module, loss: Loss, params: LoopParams) -> None:
        """Raises InputError if the folder holds a run with other settings."""
        self.folder, self.module, self.loss, self.params = folder, module, loss, params
        self.step = 0
        learning = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learning, params.lr, (0.9, 0.99))
        self.average: Any = copy.deepcopy(module).requires_grad_(False)
        """A copy with the averaged weights, which are the result of the run."""
        # Only fp16 needs it, as its small gradients would become zero.
        scaled = params.precision == "fp16"
        self.scaler = torch.amp.GradScaler(torch.device(params.device).type, enabled=scaled)
        self.history: list[dict[str, float]] = []
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            self._resume(torch.load(folder / STATE, map_location="cpu", weights_only=True))

    # ------------------------------------------------------------ checkpoints

    def _settings(self) -> dict[str, Any]:
        kept = asdict(self.params)
        for name in ("device", "save_every", "log_every"):
            del kept[name]
        return kept

    @property
    def _parts(self) -> dict[str, Any]:
        return {
            "weights": self.module,
            "average": self.average,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
        }

    def _resume(self, state: Mapping[str, Any]) -> None:
        if state["settings"] != self._settings():
            raise InputError(
                f"{self.folder} holds a run with other settings: {state['settings']}. "
                f"Yours are {self._settings()}. Use the same settings to resume, or another folder."
            )
        self.step, self.history = state["step"], state["history"]
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        log.info("resuming at step %d of %d", self.step, self.params.steps)

    def save(self) -> None:
        """Write the checkpoint; a stopped write leaves the previous one."""
        state = {
            "settings": self._settings(),
            "step": self.step,
            "history": self.history,
            **{name: part.state_dict() for name, part in self._parts.items()},
        }
        part = self.folder / f"{STATE}.part"
        torch.save(state, part)
        part.replace(self.folder / STATE)
        self._write_history()

    def _write_history(self) -> None:
        if not self.history:
            return
        names = list(dict.fromkeys(name for row in self.history for name in row))
        with (self.folder / LOSSES).open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.history)
        draw_curves(self.history, self.folder / CURVES)

    # ------------------------------------------------------------ steps

    def run(self, until: int | None = None) -> bool:
        """Train to the end, or to step ``until``, and save. Returns whether it is the end."""
        end = min(self.params.steps, until or self.params.steps)
        sums: dict[str, list[float]] = {}
        started, first = time.monotonic(), self.step
        while self.step < end:
            for name, value in self._step().items():
                sums.setdefault(name, []).append(value)
            self.step += 1
            if self.step % self.params.log_every == 0 or self.step == end:
                row = {name: sum(values) / len(values) for name, values in sums.items()}
                self.history.append({"step": self.step, **row})
                sums = {}
                pace = (time.monotonic() - started) / (self.step - first)
                words = " ".join(f"{name} {value:.4f}" for name, value in row.items())
                left = pace * (self.params.steps - self.step) / 60
                place = f"{self.step}/{self.params.steps}"
                log.info("%s %s (%.2f s, %.0f min left)", place, words, pace, left)
            if self.step % self.params.save_every == 0 or self.step == end:
                self.save()
        return self.step == self.params.steps

    def _step(self) -> dict[str, float]:
        p, optimizer = self.params, self.optimizer
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(self.step, p)
        optimizer.zero_grad(set_to_none=True)
        report: dict[str, float] = {}
        for part in range(p.accumulate):
            rng = step_rng(p.seed, self.step, part)
            # A loss may also draw from torch's generator: seed it by the step.
            torch.manual_seed(int(rng.integers(2**31)))
            parts = self.loss(rng)
            total = torch.stack(list(parts.values())).sum() / p.accumulate
            self.scaler.scale(total).backward()
            for name, value in parts.items():
                report[name] = report.get(name, 0.0) + float(value.detach()) / p.accumulate
        self.scaler.unscale_(optimizer)
        learning = [q for group in optimizer.param_groups for q in group["params"]]
        norm = nn.utils.clip_grad_norm_(learning, p.clip)
        # One bad batch must not end a long run; fp16's scaler skips such steps by itself.
        if self.scaler.is_enabled() or torch.isfinite(norm):
            self.scaler.step(optimizer)
        else:
            log.warning("step %d: the gradient is not finite; the step is skipped", self.step)
        self.scaler.update()
        self._move_average()
        return report

    @torch.no_grad()
    def _move_average(self) -> None:
        # A small decay at first, so that the random start soon leaves the average.
        decay = min(self.params.ema, (1 + self.step) / (10 + self.step))
        average = self.average.state_dict()
        for name, value in self.module.state_dict().items():
            if value.is_floating_point():
                average[name].lerp_(value, 1 - decay)
            else:
                average[name].copy_(value)


def autocast(params: LoopParams) -> torch.autocast:
    """The autocast context for the precision of the run."""
    return torch.autocast(
        torch.device(params.device).type,
        DTYPES[params.precision] if params.precision != "fp32" else None,
        enabled=params.precision != "fp32",
    )
