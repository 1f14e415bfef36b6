r"""Evaluate weights on the held-out clips: ``python -m uav_core.training.evaluate ...``.

    python -m uav_core.training.evaluate --data DATA --weights weights --output report
    python -m uav_core.training.evaluate --data DATA --weights weights --output report --ablation
    python -m uav_core.training.evaluate --data DATA --weights weights --output report --mild
    python -m uav_core.training.evaluate --data DATA --weights weights --output report \
        --self-ensemble
    python -m uav_core.training.evaluate --data DATA --weights weights --output report --real-esrgan

Every held-out clip is degraded with fixed settings, upscaled as the shipped workflow does it, and
compared with the bicubic enlargement of the same low-resolution frames. Writes ``results.json``,
``results.md`` and pictures.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UpscaleAVideoError
from ..flow.builtin import BuiltinFlow
from ..flow.estimate import estimate_flows
from ..frames.color import ColorMode
from ..metrics import compare, joint_borders
from ..metrics.compare import MEASURES
from ..models.unet import TemporalUNet
from ..models.vae import TemporalVAE
from ..sampling.noise import LATENT, LOW_RES, frame_noise
from ..sampling.pipeline import bicubic, decode, load_vae, sample
from ..weights import included
from . import real_esrgan
from .data.clips import HeldOutClip, held_out, held_out_mild
from .data.degrade import degrade
from .export import NEGATIVE_TEXT_KEY, NULL_TEXT_KEY, load_texts, load_trained_unet
from .temporal import temporal_bypassed

log = logging.getLogger("evaluate")

DEGRADATION_SEED = 20240608
FLOW_MODEL = BuiltinFlow()
TRUTH, BICUBIC = "ground truth", "bicubic"


@dataclass(frozen=True)
class Settings:
    """Settings of one way to upscale; the defaults are those of the shipped workflow."""

    name: str = "default"
    steps: int = included.STEPS
    guidance: float = included.GUIDANCE
    noise_level: int = included.NOISE_LEVEL
    temporal_layers: bool = True
    propagation: bool = True
    temporal_decoder: bool = True
    color: ColorMode = included.COLOR_FIX
    group: int = included.FRAMES_PER_GROUP
    self_ensemble: bool = False


@dataclass
class Weights:
    """The networks to evaluate."""

    unet: TemporalUNet
    texts: dict[str, Tensor]
    vae: TemporalVAE
    plain_vae: TemporalVAE | None = None

    @classmethod
    def load(cls, folder: Path) -> Weights:
        """Load the files of a folder as ``export`` writes them."""
        unet, texts = load_trained_unet(folder / f"{included.UNET}.safetensors")
        path = folder / f"{included.TEXT}.safetensors"
        if path.exists():
            texts = load_texts(path)
        plain = folder / f"{included.VAE_3D}.safetensors"
        return cls(
            unet,
            texts,
            load_vae(folder / f"{included.VAE_VIDEO}.safetensors"),
            load_vae(plain) if plain.exists() else None,
        )


@dataclass
class Row:
    """The measures of one clip, upscaled in one way."""

    clip: str
    settings: str
    seconds: float
    measures: dict[str, float] = field(default_factory=dict)


def low_resolution(clip: HeldOutClip, number: int) -> Tensor:
    """A held-out clip with its fixed degradation, (1, 3, t, h / 4, w / 4)."""
    rng = np.random.default_rng([DEGRADATION_SEED, number])
    return degrade(clip.frames, rng, clip.degradation)[None]


@torch.inference_mode()
def upscale(weights: Weights, low_res: Tensor, s: Settings, seed: int = 0) -> Tensor:
    """Upscale to (1, 3, t, 4h, 4w) in [-1, 1], as the nodes do with these settings."""
    t, h, w = low_res.shape[2:]
    null = weights.texts[NULL_TEXT_KEY]
    context = torch.stack((weights.texts.get(NEGATIVE_TEXT_KEY, null), null))
    flows = estimate_flows(FLOW_MODEL, low_res) if s.propagation else None
    chosen = range(max(0, s.steps - included.PROPAGATED), s.steps) if s.propagation else ()
    with temporal_bypassed(weights.unet, not s.temporal_layers):
        latents = sample(
            weights.unet,
            low_res,
            context,
            steps=s.steps,
            guidance=s.guidance,
            noise_level=s.noise_level,
            noise=frame_noise(seed, LATENT, range(t), 4, h, w),
            low_res_noise=frame_noise(seed, LOW_RES, range(t), 3, h, w),
            flows=flows,
            propagation_steps=tuple(chosen),
        )
    vae = weights.vae if s.temporal_decoder else weights.plain_vae
    assert vae is not None
    return decode(
        vae, latents, low_res, group=s.group, color=s.color, self_ensemble=s.self_ensemble
    )


def judge(
    weights: Weights,
    clips: Sequence[tuple[int, HeldOutClip]],
    ways: Sequence[Settings],
    out: Path,
    others: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
) -> list[Row]:
    """Measure every clip upscaled in every way, the ground truth and the bicubic enlargement.

    ``others`` are further upscalers of (1, 3, t, h, w), by name, without these weights.
    """
    rows = []
    for number, clip in clips:
        low_res, truth = low_resolution(clip, number), clip.frames[None]
        results = {TRUTH: truth, BICUBIC: bicubic(low_res).clamp(-1, 1)}
        seconds = {}
        upscalers = {s.name: partial(upscale, weights, s=s) for s in ways} | dict(others or {})
        for name, upscaler in upscalers.items():
            started = time.monotonic()
            results[name] = upscaler(low_res)
            seconds[name] = time.monotonic() - started
        t = truth.shape[2]
        borders = joint_borders(t, group=ways[0].group)
        measured = compare(results, truth, FLOW_MODEL, borders=borders).rows
        for name, measures in measured.items():
            rows.append(Row(clip.name, name, seconds.get(name, 0.0), measures))
            words = " ".join(f"{key} {value:.3f}" for key, value in measures.items())
            log.info("%s, %s: %s (%.0f s)", clip.name, name, words, rows[-1].seconds)
        save_strip(out / f"{clip.name}.png", [*list(results.values())[1:], truth])
    return rows


def save_strip(path: Path, clips: Sequence[Tensor]) -> None:
    """Save the middle frames of clips side by side."""
    middle = [clip[0, :, clip.shape[2] // 2] for clip in clips]
    strip = torch.cat(middle, dim=-1).add(1).mul(127.5).round().clamp(0, 255).byte()
    Image.fromarray(strip.permute(1, 2, 0).numpy()).save(path)


def table(rows: Sequence[Row]) -> str:
    """Means over the clips as a Markdown table, one line for each way to upscale."""
    ways = list(dict.fromkeys(row.settings for row in rows))
    names = [name for name in MEASURES if all(name in row.measures for row in rows)]
    titles = [MEASURES[name].title for name in names]
    lines = ["| | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(names)]
    for way in ways:
        own = [row.measures for row in rows if row.settings == way]
        cells = [f"{mean(own, name):.{MEASURES[name].digits}f}" for name in names]
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean(measures: Sequence[dict[str, float]], name: str) -> float:
    """Mean of one measure over clips."""
    return sum(m[name] for m in measures) / len(measures)


def verdict(rows: Sequence[Row], way: str) -> dict[str, float]:
    """The four goals of the default model, as numbers to compare with docs/training.md."""
    by = {(row.clip, row.settings): row.measures for row in rows}
    clips = list(dict.fromkeys(row.clip for row in rows))
    ours, plain, truth = ([by[clip, name] for clip in clips] for name in (way, BICUBIC, TRUTH))

    def better(name: str, sign: int) -> float:
        pairs = zip(ours, plain, strict=True)
        return sum(sign * (a[name] - b[name]) > 0 for a, b in pairs) / len(clips)

    return {
        "share of clips with better HaarPSI than bicubic": better("haarpsi", 1),
        "share of clips with better GMSD than bicubic": better("gmsd", -1),
        "PSNR minus bicubic, dB": mean(ours, "psnr") - mean(plain, "psnr"),
        "warping error over the ground truth's": mean(ours, "warping_error")
        / mean(truth, "warping_error"),
    }


BASE = Settings()
SELF_ENSEMBLE = replace(BASE, name="self-ensemble", self_ensemble=True)
ABLATION = (
    BASE,
    replace(BASE, name="temporal layers off", temporal_layers=False),
    replace(BASE, name="propagation off", propagation=False),
    replace(BASE, name="plain decoder", temporal_decoder=False),
    replace(BASE, name="noise level 120", noise_level=120),
    replace(BASE, name="noise level 250", noise_level=250),
    replace(BASE, name="guidance 2", guidance=2.0),
    replace(BASE, name="guidance 4", guidance=4.0),
    replace(BASE, name="30 steps", steps=30),
    replace(BASE, name="decode groups of 3", group=3),
    replace(BASE, name="no colour fix", color="none"),
    SELF_ENSEMBLE,
)


def main() -> int:
    """Evaluate the weights and write the report. Returns 0, or 1 after logging an error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder made by uav_core.training.data.sources"
    )
    parser.add_argument("--weights", type=Path, required=True, help="folder of the weights")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    parser.add_argument(
        "--ablation", action="store_true", help="evaluate every setting, not only the default"
    )
    parser.add_argument(
        "--mild",
        action="store_true",
        help="use the mild half of the clips: clean or compressed, not damaged",
    )
    parser.add_argument(
        "--self-ensemble", action="store_true", help="also evaluate the preset 'best'"
    )
    parser.add_argument(
        "--real-esrgan", action="store_true", help="also evaluate Real-ESRGAN, if it is installed"
    )
    parser.add_argument("--every", type=int, default=1, help="use only every n-th clip")
    parser.add_argument("--threads", type=int, help="CPU threads")
    o = parser.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    try:
        report_on(o)
    except UpscaleAVideoError as error:
        log.error("%s", error)
        return 1
    return 0


def report_on(o: argparse.Namespace) -> None:
    """Evaluate what the options say, and write the report."""
    o.output.mkdir(parents=True, exist_ok=True)
    chosen = held_out_mild(o.data) if o.mild else held_out(o.data)
    clips = list(enumerate(chosen))[:: o.every]
    ways = ABLATION if o.ablation else (BASE, SELF_ENSEMBLE) if o.self_ensemble else (BASE,)
    others = real_esrgan.upscalers(o.threads or 0) if o.real_esrgan else {}
    rows = judge(Weights.load(o.weights), clips, ways, o.output, others)
    found = verdict(rows, BASE.name)
    report = {"verdict": found, "rows": [asdict(row) for row in rows]}
    (o.output / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = [f"{name}: {value:.3f}" for name, value in found.items()]
    (o.output / "results.md").write_text(table(rows) + "\n\n" + "\n".join(lines) + "\n")
    log.info("\n%s\n%s", table(rows), "\n".join(lines))


if __name__ == "__main__":
    raise SystemExit(main())
