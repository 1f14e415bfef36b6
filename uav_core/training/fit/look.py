"""Evaluation on the held-out clips: a table and a contact sheet, beside bicubic."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ...frames.color import color_fix, enlarge
from ...models.unet import TemporalUNet
from ...models.vae import LATENT_SCALE, TemporalVAE
from ...sampling import schedule
from ...sampling.noise import LATENT, LOW_RES, frame_noise
from ...weights import included
from ..data.degrade import LUMA
from ..data.pack import KEPT_FRAMES, HeldOut
from ..unet import sample_clips
from .judges import Features, distance
from .latents import Texts, flows_of, pixels

log = logging.getLogger(__name__)

BICUBIC, ORIGINAL = "bicubic", "original"
SHEET = (
    "castle", "bee", "film_05450", "astronaut", "friends_web", "lattice_clean",
    "film_01630_clean", "city_00140_web",
)  # fmt: skip
"""Clips on the contact sheet; the first ones instead if these are not evaluated."""
TITLES = (
    "PSNR dB",
    "GMSD",
    "perceptual distance",
    "detail, share of the original's",
    "GMSD better",
)


def gradient_deviation(a: Tensor, b: Tensor) -> Tensor:
    """GMSD (n,) of pictures (n, 3, h, w) in [-1, 1]."""

    def slopes(x: Tensor) -> Tensor:
        grey = (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True) * 127.5
        grey = F.avg_pool2d(grey, 2)
        kernel = x.new_tensor([[1.0, 0.0, -1.0]] * 3).view(1, 1, 3, 3) / 3
        both = (F.conv2d(grey, k, padding=1) for k in (kernel, kernel.transpose(2, 3)))
        return sum(g.square() for g in both).sqrt()  # type: ignore[union-attr]

    x, y = slopes(a), slopes(b)
    return ((2 * x * y + 170) / (x.square() + y.square() + 170)).flatten(1).std(1)


@dataclass
class Gallery:
    """Measures and pictures of the held-out clips, by the name of each evaluation."""

    held: HeldOut
    features: Features
    texts: Texts
    autocast: Callable[[], torch.autocast]
    device: torch.device
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    pictures: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    @torch.no_grad()
    def look(self, name: str, unet: TemporalUNet, vae: TemporalVAE, batch: int = 12) -> None:
        """Upscale every clip as the shipped workflow does, and measure it."""
        for first in range(0, len(self.held.names), batch):
            names = self.held.names[first : first + batch]
            low = pixels(torch.tensor(self.held.low[first : first + batch], device=self.device))
            self._measure(name, first, names, low, self._upscaled(unet, vae, low))
        log.info("%s\n%s", name, self.table())

    def _upscaled(self, unet: TemporalUNet, vae: TemporalVAE, low: Tensor) -> Tensor:
        n, _, t, h, w = low.shape
        noise, low_noise = (
            frame_noise(0, kind, range(t), c, h, w).to(self.device).repeat(n, 1, 1, 1, 1)
            for kind, c in ((LATENT, 4), (LOW_RES, 3))
        )
        level = included.NOISE_LEVEL
        noised = schedule.noise_low_res(low, low_noise, level)
        with self.autocast():
            z = sample_clips(
                unet, noise, noised, level, self.texts.null, included.STEPS,
                flows=flows_of(low), propagated=included.PROPAGATED,
            )  # fmt: skip
        outs = []
        for i in range(n):
            one = slice(i, i + 1)
            with self.autocast():
                out = vae.decode(z[one] / LATENT_SCALE, low[one])
            outs.append(color_fix(out.float(), low[one], included.COLOR_FIX))
        return torch.cat(outs).clamp(-1, 1)

    def _measure(self, name: str, first: int, names: list[str], low: Tensor, out: Tensor) -> None:
        kept = list(KEPT_FRAMES)
        for i, clip in enumerate(names):
            truth = self.held.clean[self.held.which[first + i]][None]
            truth = pixels(torch.tensor(truth, device=self.device))[0].transpose(0, 1)
            plain = enlarge(low[i, :, kept].transpose(0, 1))
            for key, x in ((BICUBIC, plain.clamp(-1, 1)), (name, out[i, :, kept].transpose(0, 1))):
                with self.autocast():
                    far = distance(self.features(x), self.features(truth))
                error, detail = (x - truth).square().mean(), x.diff(dim=-1).abs().mean()
                marks = torch.stack((
                    -10 * (error / 4 + 1e-12).log10(),
                    gradient_deviation(x, truth).mean(),
                    far,
                    detail / truth.diff(dim=-1).abs().mean(),
                ))  # fmt: skip
                self.rows.setdefault(key, {})[clip] = marks.tolist()
                self._keep(clip, key, x)
            self._keep(clip, ORIGINAL, truth)

    def _keep(self, clip: str, key: str, x: Tensor) -> None:
        if clip in SHEET or clip == self.held.names[0]:
            shown = x[-1].add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
            self.pictures.setdefault(clip, {})[key] = shown

    def table(self) -> str:
        """Means over the damaged and over the mild clips, as Markdown tables."""
        damaged = len(self.held.clean)
        lines = []
        for title, names in (
            ("damaged", self.held.names[:damaged]),
            ("mild", self.held.names[damaged:]),
        ):
            if not names:
                continue
            lines += [f"| {len(names)} {title} clips | " + " | ".join(TITLES) + " |"]
            lines += ["| --- |" + " ---: |" * len(TITLES)]
            for key, found in self.rows.items():
                means = np.mean([found[n] for n in names], axis=0)
                better = sum(found[n][1] < self.rows[BICUBIC][n][1] for n in names)
                cells = [f"{v:.{d}f}" for v, d in zip(means, (2, 4, 4, 3), strict=True)]
                lines.append(f"| {key} | " + " | ".join([*cells, str(better)]) + " |")
            lines.append("")
        return "\n".join(lines)

    def sheet(self, path: Path) -> None:
        """Save whole frames, and below each its part with most detail, enlarged."""
        rows = []
        for clip, found in self.pictures.items():
            keys = [BICUBIC, *(k for k in found if k not in (BICUBIC, ORIGINAL)), ORIGINAL]
            top, left = _richest(found[ORIGINAL], 80, 100)
            cells = []
            for key in keys:
                frame = Image.fromarray(found[key])
                cell = Image.new("RGB", (304, 490), (20, 20, 20))
                cell.paste(frame.resize((300, 225), Image.Resampling.BICUBIC), (2, 18))
                part = frame.crop((left, top, left + 100, top + 80))
                cell.paste(part.resize((300, 240), Image.Resampling.NEAREST), (2, 247))
                ImageDraw.Draw(cell).text((6, 4), f"{clip}: {key}", fill=(255, 255, 255))
                cells.append(np.asarray(cell))
            rows.append(np.concatenate(cells, 1))
        if rows:
            Image.fromarray(np.concatenate(rows)).save(path, quality=88)


def _richest(picture: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Top and left of the part with the largest horizontal differences."""
    slopes = np.abs(np.diff(picture.astype(float).mean(2), axis=1))
    h, w = picture.shape[:2]
    places = [
        (y, x)
        for y in range(0, max(h - height, 0) + 1, 16)
        for x in range(0, max(w - width, 0) + 1, 16)
    ]
    return max(places, key=lambda p: slopes[p[0] : p[0] + height, p[1] : p[1] + width].mean())
