import re

import pytest
import tiny
import torch
from generated import det, golden

from uav_core import upscale

GOLDEN = golden()
CASES = sorted({k.rsplit("/", 1)[0] for k in GOLDEN if k.startswith("pipeline/")})


def inputs(name: str) -> dict:
    """The arguments of ``upscale`` that a golden pipeline case was made with."""
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


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    latents, frames = upscale(tiny.unet(), tiny.vae("vae_3d"), **inputs(name))
    torch.testing.assert_close(latents, GOLDEN[f"{name}/latents"], rtol=1e-4, atol=1e-4)
    if f"{name}/frames_out" in GOLDEN:
        torch.testing.assert_close(frames, GOLDEN[f"{name}/frames_out"], rtol=1e-4, atol=1e-4)
