"""The included weights on the sample clip: what a first run shows."""

from __future__ import annotations

import av
import numpy as np
import torch

from scripts.env.layout import ROOT
from uav_core.metrics import compare
from uav_core.sampling.pipeline import bicubic
from uav_core.training.evaluate import Settings, Weights, upscale
from uav_core.weights import included

FRAMES = 4


def part(name: str, factor: int) -> torch.Tensor:
    """(1, 3, t, h, w) in [-1, 1]: the first frames of a clip in `assets`, around the rabbit."""
    with av.open(str(ROOT / "assets" / name)) as container:
        found = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][:FRAMES]
    pixels = np.stack(found)[:, 14 * factor : 62 * factor, 30 * factor : 94 * factor]
    return torch.from_numpy(pixels).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def test_they_are_nearer_to_the_original_than_bicubic_and_sharper():
    low_res, truth = part("sample.mp4", 1), part("sample_x4.mp4", 4)
    results = {
        "bicubic": bicubic(low_res).clamp(-1, 1),
        "ours": upscale(Weights.load(included.FOLDER), low_res, Settings()),
    }
    rows = compare(results, truth).rows
    for name in ("psnr", "haarpsi", "detail"):
        assert rows["ours"][name] > rows["bicubic"][name], (name, rows)
    assert rows["ours"]["gmsd"] < rows["bicubic"]["gmsd"], rows
