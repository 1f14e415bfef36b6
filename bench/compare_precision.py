"""Measure how far each precision of the loaders is from fp32, in the finished frames of the nodes.

    python -m bench.compare_precision [--clip FILE] [--frames N] [--steps N] [--easycache T ...]

Samples and decodes with the included weights as the shipped workflow does, without propagation:
first the U-Net in every precision with the VAE in fp32, then the VAE in every precision with the
U-Net in fp32. With --easycache it instead tests ComfyUI's EasyCache at these thresholds, everything
in fp32, and counts the remaining passes of the U-Net. ComfyUI runs inside the process. Logs a
Markdown table.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
sys.path.append(str(ROOT / "tests" / "support"))

from torchvision_shim.prestartup_script import install as complete_torchvision  # noqa: E402

from scripts.comfy_inside import import_pack  # noqa: E402
from uav_core.metrics import psnr  # noqa: E402
from uav_core.sampling.segments import OVERLAP, SEGMENT_LENGTH  # noqa: E402
from uav_core.video import VideoReader  # noqa: E402
from uav_core.weights import included  # noqa: E402

EXACT = "fp32"
SEED = 5

log = logging.getLogger("precision")


def read(clip: Path, frames: int) -> Tensor:
    """The first frames as IMAGE (t, h, w, 3) in [0, 1]."""
    with VideoReader(clip, 0, frames) as reader:
        return torch.stack([(frame.movedim(0, -1) + 1) / 2 for frame in reader])


class Nodes:
    """The pack's nodes, on one clip."""

    def __init__(self, pack: ModuleType, images: Tensor, steps: int) -> None:
        self.pack, self.images, self.steps = pack, images, steps
        self.passes = 0
        """Passes of the U-Net in the last run."""

    def _count(self, *_: Any) -> None:
        self.passes += 1

    def sampled(self, precision: str, threshold: float | None = None) -> dict[str, Any]:
        """LATENT sampled by the U-Net in this precision; with a ``threshold`` through EasyCache."""
        unet = run(
            self.pack.nodes.loaders.load.LoadUNet,
            first(self.pack.nodes.loaders.load.LoadUNet),
            precision,
        )
        self.passes = 0
        # EasyCache skips inside the network's own call.
        unet.model.diffusion_model.conv_in.register_forward_pre_hook(self._count)
        if threshold is not None:
            caches = importlib.import_module("comfy_extras.nodes_easycache")
            unet = run(caches.EasyCacheNode, unet, threshold, 0.15, 0.95, False)
        conditioned = self.pack.nodes.sampling.condition.LowResConditioning.execute(
            self.images, included.NOISE_LEVEL, SEED
        )
        positive, negative, latent = conditioned.result
        return run(
            self.pack.nodes.sampling.sample.SegmentSampler,
            unet,
            positive,
            negative,
            latent,
            self.steps,
            included.GUIDANCE,
            SEED,
            SEGMENT_LENGTH,
            OVERLAP,
        )

    def decoded(self, latent: dict[str, Any], precision: str) -> Tensor:
        """(1, 3, t, 4h, 4w) of the VAE in this precision, in [-1, 1]."""
        vae = run(
            self.pack.nodes.loaders.load.LoadVAE,
            first(self.pack.nodes.loaders.load.LoadVAE),
            precision,
        )
        frames = run(
            self.pack.nodes.sampling.decode.VAEDecode,
            latent,
            vae,
            self.images,
            1.0,
            included.FRAMES_PER_GROUP,
            included.COLOR_FIX,
        )
        return frames.movedim(-1, 0)[None] * 2 - 1


def run(node: Any, *values: Any) -> Any:
    """The first output of a node."""
    return node.execute(*values).result[0]


def first(loader: Any) -> str:
    """The first choice of a loader: the included weights."""
    return loader.define_schema().inputs[0].options[0]


def main() -> None:
    """Upscale in every precision and log the table."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, default=ROOT / "assets" / "sample.mp4")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=included.STEPS)
    parser.add_argument(
        "--easycache", type=float, nargs="+", help="EasyCache thresholds; 0.2 is usual"
    )
    o = parser.parse_args()
    complete_torchvision()
    with tempfile.TemporaryDirectory() as models:
        pack = import_pack(Path(models))
        nodes = Nodes(pack, read(o.clip, o.frames), o.steps)
        latent = nodes.sampled(EXACT)
        exact = nodes.decoded(latent, EXACT)
        lines = ["| | PSNR to fp32 | largest difference |", "| --- | ---: | ---: |"]
        whole = nodes.passes

        def row(title: str, frames: Tensor) -> None:
            most = (frames - exact).abs().max().item() / 2
            lines.append(f"| {title} | {psnr(frames, exact):.1f} dB | {most:.3f} |")
            log.info(lines[-1])

        for threshold in o.easycache or ():
            frames = nodes.decoded(nodes.sampled(EXACT, threshold), EXACT)
            row(f"EasyCache {threshold:g}, {nodes.passes} of {whole} passes", frames)
        if not o.easycache:
            for precision in pack.nodes.loaders.load.WEIGHT_DTYPES:
                if precision not in ("default", EXACT):
                    row(f"U-Net {precision}", nodes.decoded(nodes.sampled(precision), EXACT))
            for precision in pack.nodes.loaders.load.VAE_PRECISIONS:
                if precision != EXACT:
                    row(f"VAE {precision}", nodes.decoded(latent, precision))
    log.info("\n%s", "\n".join(lines))


if __name__ == "__main__":
    main()
