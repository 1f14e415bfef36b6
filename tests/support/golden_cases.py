"""The inputs of the golden data, by the name of the result."""

from __future__ import annotations

import re
from typing import Any

import tiny
import torch
from generated import det, golden
from torch import Tensor

GOLDEN = golden()
UNET = sorted(key for key in GOLDEN if key.startswith("unet/"))
DECODE = sorted(key for key in GOLDEN if key.startswith("vae_") and "decode" in key)
PIPELINE = sorted({k.rsplit("/", 1)[0] for k in GOLDEN if k.startswith("pipeline/")})


def unet_inputs(case: str) -> tuple[Tensor, ...]:
    """Latent, time step, low-resolution frames, text and noise level of a ``unet/`` case."""
    name = case.removesuffix("/out")
    b, t, h, w = (int(n) for n in name.split("/")[1].split("x"))
    return (
        det(f"{name}/latent", (b, 4, t, h, w)),
        torch.full((b,), 500),
        det(f"{name}/low_res", (b, 3, t, h, w)),
        tiny.context()[:b],
        torch.full((b,), 120),
    )


def decode_inputs(case: str) -> tuple[str, tuple[Tensor, Tensor, float]]:
    """Kind of VAE of a decode case, and its latents, low-resolution frames and their weight."""
    kind, t, what = case.split("/")
    name, shape = f"{kind}/{t}", (int(t), 6, 8)
    z = det(f"{name}/z", (1, 4, *shape))
    low_res = det(f"{name}/low_res", (1, 3, *shape)).clamp(-1, 1)
    return kind, (z, low_res, float(what.partition("_w")[2] or 1))


def pipeline_inputs(name: str) -> dict[str, Any]:
    """The arguments of ``upscale`` for a case of a whole run."""
    found = re.fullmatch(r"pipeline/T(\d+)s(\d+)(?:p([\d_]+))?", name)
    assert found, name
    t, steps, propagation = found.groups()
    shape = (int(t), 8, 10)
    case = {
        "frames": det(f"{name}/frames", (1, 3, *shape)).clamp(-1, 1),
        "context": tiny.context(),
        "steps": int(steps),
        "guidance": 6.0,
        "noise_level": 120,
        "noise": det(f"{name}/noise", (1, 4, *shape)),
        "low_res_noise": det(f"{name}/low_res_noise", (1, 3, *shape)),
    }
    if propagation:
        case["propagation_steps"] = tuple(int(n) for n in propagation.split("_"))
        case["flows"] = (GOLDEN[f"{name}/flow_forward"], GOLDEN[f"{name}/flow_backward"])
    return case
