"""Measure visible tile borders: tiles blended at every step, or pasted at the end.

    python -m bench.tile_joints [--clip assets/sample_x4.mp4] [--frames 3] [--tile 128]

Upscales a clip with the included weights three times: in whole frames; in tiles that are blended at
every step and in decoding, as the pack does; and with each tile alone from the first step to the
last, pasted at the middle of the overlap, as the reference does. Prints how much neighbouring
pixels differ at tile borders compared with everywhere else, and can save a picture.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.measure.joints import spatial_jump  # noqa: E402
from uav_core import load_unet, load_vae  # noqa: E402
from uav_core.frames.color import color_fix  # noqa: E402
from uav_core.models.vae import UPSCALE  # noqa: E402
from uav_core.sampling.noise import LATENT, LOW_RES, frame_noise  # noqa: E402
from uav_core.sampling.pipeline import decode, sample  # noqa: E402
from uav_core.sampling.tiles import OVERLAP, Tile, plan_tiles  # noqa: E402
from uav_core.video import VideoReader  # noqa: E402
from uav_core.weights import included  # noqa: E402
from uav_core.weights.text import load_quality_text  # noqa: E402

CROP, ZOOM, BRIGHTER = 96, 4, 8
PAPER, INK = "#16181d", "#f2f2f2"

log = logging.getLogger("tile_joints")


class Upscaler:
    """The included weights with the shipped settings, without propagation."""

    def __init__(self, frames: Tensor) -> None:
        self.unet = load_unet(included.path_of(included.UNET))
        self.vae = load_vae(included.path_of(included.VAE_VIDEO))
        texts = load_quality_text(included.path_of(included.TEXT))
        self.context = torch.stack((texts.embed("blur, worst quality"), texts.embed("")))
        self.frames = frames
        t, h, w = frames.shape[2:]
        self.noise = frame_noise(0, LATENT, range(t), 4, h, w)
        self.low_res_noise = frame_noise(0, LOW_RES, range(t), 3, h, w)

    def __call__(self, part: Tile, tile: int | None, overlap: int) -> Tensor:
        """Upscale one part of the frames to (1, 3, t, 4h, 4w), in tiles if ``tile`` is given."""
        frames = part.crop(self.frames)
        latents = sample(
            self.unet,
            frames,
            self.context,
            steps=included.STEPS,
            guidance=included.GUIDANCE,
            noise_level=included.NOISE_LEVEL,
            noise=part.crop(self.noise),
            low_res_noise=part.crop(self.low_res_noise),
            tile=tile,
            tile_overlap=overlap,
        )
        group = included.FRAMES_PER_GROUP
        pixels = decode(self.vae, latents, frames, group=group, tile=tile, tile_overlap=overlap)
        return color_fix(pixels, frames, included.COLOR_FIX)

    def pasted(self, plan: tuple[Tile, ...]) -> Tensor:
        """Upscale every tile alone with the same noise; paste it up to the middle of overlaps."""
        t, h, w = self.frames.shape[2:]
        out = torch.empty(1, 3, t, UPSCALE * h, UPSCALE * w)
        rows, columns = owners(plan)
        for tile in plan:
            own = Tile(*rows[tile.top, tile.bottom], *columns[tile.left, tile.right])
            inner = Tile(
                own.top - tile.top,
                own.bottom - tile.top,
                own.left - tile.left,
                own.right - tile.left,
            )
            pixels = self(tile, None, 0)
            own.scaled(UPSCALE).crop(out).copy_(inner.scaled(UPSCALE).crop(pixels))
        return out


Span = tuple[int, int]


def owners(plan: tuple[Tile, ...]) -> tuple[dict[Span, Span], dict[Span, Span]]:
    """The rows and columns of each tile that are pasted."""

    def cut(spans: list[Span]) -> dict[Span, Span]:
        middles = [(a[1] + b[0]) // 2 for a, b in pairwise(spans)]
        starts, stops = [spans[0][0], *middles], [*middles, spans[-1][1]]
        return dict(zip(spans, zip(starts, stops, strict=True), strict=True))

    rows = cut(sorted({(tile.top, tile.bottom) for tile in plan}))
    return rows, cut(sorted({(tile.left, tile.right) for tile in plan}))


def borders(plan: tuple[Tile, ...]) -> Iterator[tuple[str, list[int], list[int]]]:
    """Columns and rows of the result where pasted tiles meet, and where tiles begin or end."""
    rows, columns = owners(plan)

    def scaled(places: set[int], end: int) -> list[int]:
        return sorted(UPSCALE * place for place in places if 0 < place < end)

    w, h = max(tile.right for tile in plan), max(tile.bottom for tile in plan)
    middles = [{start for start, _ in spans.values()} for spans in (columns, rows)]
    yield "middle of the overlap", scaled(middles[0], w), scaled(middles[1], h)
    edges = [{place for span in spans for place in span} for spans in (columns, rows)]
    yield "ends of the overlap", scaled(edges[0], w), scaled(edges[1], h)


def psnr(a: Tensor, b: Tensor) -> float:
    """PSNR in dB, for values in [-1, 1]."""
    return float(-10 * ((a - b) / 2).square().mean().log10())


def table(versions: dict[str, Tensor], plan: tuple[Tile, ...]) -> str:
    """The measures of every version, as Markdown."""
    whole = versions["whole frames"]
    places = list(borders(plan))
    lines = [
        "| | "
        + " | ".join(f"jump, {name}" for name, _, _ in places)
        + " | to whole frames | jump of the difference | PSNR to whole frames |",
        "| --- |" + " ---: |" * (len(places) + 3),
    ]
    own: list[float] = []
    for label, pixels in versions.items():
        jumps = [spatial_jump(pixels, columns, rows) for _, columns, rows in places]
        # The picture itself may have edges there, so compare with whole frames.
        own = own or jumps
        ratio = max(a / b for a, b in zip(jumps, own, strict=True))
        cells = [*(f"{jump:.2f}" for jump in jumps), f"{ratio:.2f}"]
        if pixels is whole:
            cells += ["", ""]
        else:
            # The change by the tiles, which does not have the picture's own edges.
            change = [spatial_jump((pixels - whole), columns, rows) for _, columns, rows in places]
            cells += [f"{max(change):.2f}", f"{psnr(pixels, whole):.1f} dB"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def worst_place(change: Tensor, columns: list[int], rows: list[int]) -> tuple[int, int]:
    """Left and top of the crop, centred on a border, where the pasted picture jumps most."""
    steps = change.diff(dim=-1).abs().sum(0)
    h = change.shape[-2]
    best = (-1.0, 0, 0)
    for column in columns or [change.shape[-1] // 2]:
        for top in range(0, h - CROP + 1, CROP // 4):
            found = float(steps[top : top + CROP, column - 1].sum())
            best = max(best, (found, max(0, column - CROP // 2), top))
    return best[1], best[2]


def picture(versions: dict[str, Tensor], columns: list[int], rows: list[int]) -> Image.Image:
    """A crop at a border of every version, and its difference to whole frames, brightened."""
    whole = versions["whole frames"][0, :, 0]
    left, top = worst_place(versions["pasted at the end"][0, :, 0] - whole, columns, rows)
    side, gap, label = CROP * ZOOM, 8, 30
    sheet = Image.new("RGB", (len(versions) * (side + gap) + gap, 2 * (side + label) + gap), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    for i, (name, pixels) in enumerate(versions.items()):
        x, one = gap + i * (side + gap), pixels[0, :, 0]
        shown = [(name, one)]
        if i:
            text = f"difference to whole frames, x {BRIGHTER}"
            shown.append((text, (one - whole) * BRIGHTER))
        for row, (text, values) in enumerate(shown):
            y = row * (side + label)
            crop = values[:, top : top + CROP, left : left + CROP]
            levels = crop.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
            image = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
            draw.text((x + side // 2, y + label // 2), text, INK, font, anchor="mm")
            sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (x, y + label))
    y = side + label
    note = f"{CROP}x{CROP} pixels, tiles meet in the middle column"
    draw.text((gap + side // 2, y + label // 2), note, INK, font, anchor="mm")
    return sheet


def main() -> None:
    """Measure, print and draw."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clip", type=Path, default=ROOT / "assets" / "sample_x4.mp4")
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--tile", type=int, default=128, help="tile size, in pixels of the clip")
    parser.add_argument("--overlap", type=int, default=OVERLAP)
    parser.add_argument(
        "--picture", type=Path, help="file for the picture, for example docs/tile_joints.jpg"
    )
    o = parser.parse_args()
    frames = torch.stack(list(islice(VideoReader(o.clip), o.frames)), 1)[None]
    h, w = frames.shape[3:]
    plan = plan_tiles((h, w), o.tile, o.overlap)
    if len(plan) == 1:
        parser.error(f"a tile of {o.tile} covers the whole clip of {w}x{h}: choose a smaller one")
    run = Upscaler(frames)
    whole = Tile(0, h, 0, w)
    versions = {
        "whole frames": run(whole, None, 0),
        "blended at every step": run(whole, o.tile, o.overlap),
        "pasted at the end": run.pasted(plan),
    }
    log.info(
        "%s: %d frames of %dx%d, %d tiles of %d sharing %d",
        o.clip.name,
        frames.shape[2],
        w,
        h,
        len(plan),
        o.tile,
        o.overlap,
    )
    log.info("%s", table(versions, plan))
    if o.picture is not None:
        _, columns, rows = next(borders(plan))
        picture(versions, columns, rows).save(o.picture, quality=88)


if __name__ == "__main__":
    main()
