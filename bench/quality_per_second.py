"""Measure quality of the included weights by sampler, schedule, steps and guidance range.

    python -m bench.quality_per_second --data DATA --output output/quality
    python -m bench.quality_per_second --data DATA --looks

``--looks`` measures the looks of the node Settings instead: detail and likeness, also to the input.

DATA is the folder that ``uav_core.training.data.sources`` makes. A few held-out clips are
degraded as in training, upscaled in every way and compared with the original. Writes
``quality.json``, ``quality.md`` and ``quality.png``. Times are processor times, so that other load
on the machine has little influence; set OMP_NUM_THREADS=1 to get the times of one core.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "tests" / "support"))

from torchvision_shim.prestartup_script import install as complete_torchvision  # noqa: E402

# Before the measures of similarity, which import torchvision.
complete_torchvision()

from bench.studies.solvers import SOLVERS  # noqa: E402
from uav_core.flow.builtin import BuiltinFlow  # noqa: E402
from uav_core.flow.estimate import estimate_flows  # noqa: E402
from uav_core.metrics import compare, joint_borders, psnr  # noqa: E402
from uav_core.sampling import schedule  # noqa: E402
from uav_core.sampling.ddim import DenoisedDDIM  # noqa: E402
from uav_core.sampling.noise import LATENT, LOW_RES, frame_noise  # noqa: E402
from uav_core.sampling.pipeline import bicubic, decode, velocity  # noqa: E402
from uav_core.sampling.presets import INCLUDED, LOOKS  # noqa: E402
from uav_core.sampling.propagation import PropagationParams, propagate  # noqa: E402
from uav_core.sampling.segments import combine, plan_segments  # noqa: E402
from uav_core.training.data.clips import HeldOutClip, held_out  # noqa: E402
from uav_core.training.evaluate import Weights, low_resolution  # noqa: E402
from uav_core.training.export import NEGATIVE_TEXT_KEY, NULL_TEXT_KEY  # noqa: E402
from uav_core.weights import included  # noqa: E402

log = logging.getLogger("quality")

CLIPS = (17, 3, 23)  # a piece of film, a bee, a city at night
SHOWN = ("psnr", "haarpsi", "gmsd", "warping_error")
SHOWN_OF_LOOKS = ("detail", "to_input", *SHOWN)
# Title in the table, and number of digits.
COLUMNS = {
    "detail": ("detail", 2),
    "to_input": ("PSNR to the input dB", 2),
    "psnr": ("PSNR dB", 2),
    "haarpsi": ("HaarPSI", 4),
    "gmsd": ("GMSD", 4),
    "warping_error": ("E*warp", 3),
}
BICUBIC = "bicubic"


@dataclass(frozen=True)
class Way:
    """One way to sample."""

    solver: str = "DDIM"
    steps: int = included.STEPS
    guidance: float = included.GUIDANCE
    start: float = 0.0
    end: float = 1.0
    rescale: float = 0.0
    """Share of the guided prediction that gets the spread of the unguided one (Lin et al. 2023)."""
    trailing: bool = True
    """Whether the time steps have trailing spacing, which the weights ask for."""
    noise_level: int = included.NOISE_LEVEL
    strength: float = PropagationParams.strength
    look: str = ""

    @property
    def line(self) -> str:
        """Name of its line in the picture."""
        return self.solver if self.trailing else f"{self.solver}, leading"

    @property
    def name(self) -> str:
        """Name in the table."""
        if self.look:
            return f"{self.look}: noise level {self.noise_level}, guidance {self.guidance:g}, " + (
                f"strength {self.strength:g}"
            )
        words = [f"{self.line}, {self.steps} step{'s' * (self.steps > 1)}"]
        if self.guidance != 1:
            words.append(f"guidance {self.guidance:g}")
        if (self.start, self.end) != (0, 1):
            words.append(f"from {self.start:.0%} to {self.end:.0%}")
        if self.rescale:
            words.append(f"rescale {self.rescale:g}")
        return ", ".join(words)


CURVE = [
    *(Way(steps=n) for n in (1, 2, 3, 4, 6, 10, 30)),
    *(Way(steps=n, trailing=False) for n in (2, 3, 4, 6, 10, 30)),
    *(Way(s, n) for s in ("DPM++ 2M", "UniPC") for n in (2, 3, 4, 6, 10)),
]
GUIDED = [
    Way(guidance=3),
    Way(steps=4, guidance=3),
    Way(steps=4, guidance=3, end=0.5),
    Way(steps=4, guidance=3, start=0.5),
    Way(steps=4, guidance=3, rescale=0.7),
]
AS_LOOKS = [
    Way(
        look=name,
        noise_level=look.noise_level,
        guidance=look.guidance,
        strength=look.propagation_strength,
    )
    for name, look in LOOKS[INCLUDED].items()
]


def sample(weights: Weights, low_res: Tensor, way: Way) -> Tensor:
    """Sample latents (1, 4, t, h, w); with DDIM as ``uav_core.sampling.pipeline.sample``."""
    t, h, w = low_res.shape[2:]
    null = weights.texts[NULL_TEXT_KEY]
    context = torch.stack((weights.texts.get(NEGATIVE_TEXT_KEY, null), null))
    noisy = schedule.noise_low_res(
        low_res, frame_noise(0, LOW_RES, range(t), 3, h, w), way.noise_level
    )
    flows = estimate_flows(FLOW, low_res)
    grid = schedule.timesteps(way.steps, way.trailing)
    ends = DenoisedDDIM(schedule.sigmas_at(grid))
    times, sigmas = grid.tolist(), ends.sigmas.tolist()
    solver, plan = SOLVERS[way.solver](), plan_segments(t)
    x = ends.start(frame_noise(0, LATENT, range(t), 4, h, w))
    for i, time_step in enumerate(times):
        sigma, signal = sigmas[i], (1 + sigmas[i] ** 2) ** -0.5
        guided = way.start <= i / way.steps < way.end
        latent = x * signal

        def clean_by(guidance: float) -> Tensor:
            parts = []
            for segment in plan:
                s = slice(segment.start, segment.stop)
                v = velocity(
                    weights.unet,
                    latent[:, :, s],  # noqa: B023
                    time_step,  # noqa: B023
                    noisy[:, :, s],
                    context,
                    way.noise_level,
                    guidance,
                )
                parts.append((segment, v))
            v = combine(parts, latent)  # noqa: B023
            return signal * latent - sigma * signal * v  # noqa: B023

        clean = clean_by(way.guidance if guided else 1.0)
        if way.rescale and guided and way.guidance != 1:
            # Computes the unguided prediction once more, which the measured time includes.
            scaled = clean * (clean_by(1.0).std() / clean.std())
            clean = clean.lerp(scaled, way.rescale)
        x = solver.correct(x, clean, sigma)
        kept = clean
        if i >= way.steps - included.PROPAGATED:
            clean = propagate(clean, *flows, PropagationParams(way.strength))
        # Propagation changes only the clean part, not the noise estimate.
        x = solver.step(x, kept, sigma, sigmas[i + 1]) + (clean - kept)
    return ends.end(x)


FLOW = BuiltinFlow()


@torch.inference_mode()
def measure(
    weights: Weights, clips: list[HeldOutClip], frames: int, side: int, ways: list[Way]
) -> Iterator[list[dict]]:
    """Rows for every way, clip by clip; clips are cut to a central square of ``side`` pixels."""
    for number in CLIPS:
        rows, clip = [], clips[number]
        top, left = ((whole - side) // 8 * 4 for whole in clip.frames.shape[-2:])
        truth = clip.frames[None, :, :frames, top : top + side, left : left + side]
        low_res = low_resolution(clip, number)[:, :, :frames]
        low_res = low_res[..., top // 4 : (top + side) // 4, left // 4 : (left + side) // 4]
        results = {BICUBIC: bicubic(low_res).clamp(-1, 1)}
        took = {BICUBIC: 0.0}
        for way in ways:
            began = time.process_time()
            latents = sample(weights, low_res, way)
            took[way.name] = time.process_time() - began
            results[way.name] = decode(
                weights.vae,
                latents,
                low_res,
                group=included.FRAMES_PER_GROUP,
                color=included.COLOR_FIX,
            )
            log.info("%s: %s, %.1f s", clip.name, way.name, took[way.name])
        borders = joint_borders(frames, group=included.FRAMES_PER_GROUP)
        for name, measures in compare(results, truth, FLOW, borders=borders).rows.items():
            row = {"clip": clip.name, "way": name, "seconds": took[name], **measures}
            rows.append({**row, "to_input": psnr(shrunk(results[name]), low_res)})
        yield rows


def shrunk(clip: Tensor) -> Tensor:
    """A clip at a quarter of its size, by area averaging."""
    return F.avg_pool3d(clip, (1, 4, 4))


def means(rows: list[dict], name: str) -> dict[str, float]:
    """Means of the way ``name`` over the clips."""
    own = [row for row in rows if row["way"] == name]
    return {key: sum(row[key] for row in own) / len(own) for key in ("seconds", *COLUMNS)}


def table(rows: list[dict], shown: tuple[str, ...] = SHOWN) -> str:
    """The rows as a Markdown table."""
    titles = ["", "s a clip", *(COLUMNS[name][0] for name in shown)]
    lines = [
        f"| {' | '.join(titles)} |".replace("|  |", "| |"),
        "| --- |" + " ---: |" * len(titles[1:]),
    ]
    for name in dict.fromkeys(row["way"] for row in rows):
        m = means(rows, name)
        cells = [f"{m['seconds']:.1f}", *(f"{m[key]:.{COLUMNS[key][1]}f}" for key in shown)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    """Draw every measure over the steps, one line per sampler. Needs matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log.info("matplotlib is missing, so no chart is drawn; run `pip install matplotlib`")
        return
    titles = {"psnr": "PSNR, dB", "haarpsi": "HaarPSI", "gmsd": "GMSD", "warping_error": "E*warp"}
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    for axes, key in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        for line in dict.fromkeys(way.line for way in CURVE):
            ways = [way for way in CURVE if way.line == line]
            values = [means(rows, way.name)[key] for way in ways]
            axes.plot([way.steps for way in ways], values, marker="o", markersize=3, label=line)
        axes.axhline(means(rows, BICUBIC)[key], color="0.6", linestyle=":", label=BICUBIC)
        better = "lower" if key in ("gmsd", "warping_error") else "higher"
        axes.set(title=f"{titles[key]} ({better} is better)", xlabel="steps", xscale="log")
        axes.set_xticks([1, 2, 4, 6, 10, 30], ["1", "2", "4", "6", "10", "30"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(str(path), dpi=110)


def main() -> None:
    """Measure, and write the report."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the training media")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "quality")
    parser.add_argument(
        "--frames", type=int, default=8, help="frames in each clip, 2 to 16 (default: 8)"
    )
    parser.add_argument(
        "--side", type=int, default=128, help="side of each clip in pixels (default: 128)"
    )
    parser.add_argument(
        "--looks", action="store_true", help="measure the looks instead of the curve"
    )
    o = parser.parse_args()
    o.output.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    clips, ways = held_out(o.data), AS_LOOKS if o.looks else [*CURVE, *GUIDED]
    name, shown = ("looks", SHOWN_OF_LOOKS) if o.looks else ("quality", SHOWN)
    for found in measure(Weights.load(included.FOLDER), clips, o.frames, o.side, ways):
        rows += found
        (o.output / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
        (o.output / f"{name}.md").write_text(table(rows, shown) + "\n")
        if not o.looks:
            draw(rows, o.output / f"{name}.png")
    log.info("\n%s", table(rows, shown))


if __name__ == "__main__":
    main()
