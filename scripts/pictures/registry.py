"""Make the icon and banner for ComfyUI's registry and the README's picture, from a real result.

    make demo
    python -m scripts.pictures.registry

Icon and banner show one divided frame: the input left, the result right. The registry requires
an icon of at most 400x400 and a 21:9 banner, each at a public address, given in pyproject.toml. The
README's picture is a smaller copy of the demo's picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import av
from PIL import Image

from scripts.env.layout import ROOT

ICON, BANNER = ROOT / "assets" / "icon.png", ROOT / "assets" / "banner.jpg"
README_PICTURE, README_WIDTH = ROOT / "docs" / "before_after.jpg", 1200
FRAME = 12
"""Index of the frame in the sample clip."""
ICON_BOX, BANNER_BOX = (150, 40, 390, 280), (40, 40, 600, 280)
"""Left, top, right and bottom in the upscaled frame: a square, and 21:9."""
LINE = (255, 255, 255)


def frame_of(path: Path, number: int) -> Image.Image:
    """One frame of a video file."""
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index == number:
                return frame.to_image()
    raise SystemExit(f"{path} has no frame {number}.")


def divided(before: Image.Image, after: Image.Image, box: tuple[int, int, int, int], size: int):
    """A part of a frame, ``size`` pixels wide: ``before`` on the left, ``after`` on the right."""
    large = before.resize(after.size, Image.Resampling.NEAREST).crop(box)
    picture = after.crop(box)
    half = picture.width // 2
    picture.paste(large.crop((0, 0, half, picture.height)), (0, 0))
    height = round(size * picture.height / picture.width)
    picture = picture.resize((size, height), Image.Resampling.LANCZOS)
    thick = max(2, size // 200)
    picture.paste(LINE, (size // 2 - thick // 2, 0, size // 2 - thick // 2 + thick, height))
    return picture


def main() -> None:
    """Write the three pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, default=ROOT / "assets" / "sample.mp4")
    parser.add_argument("--after", type=Path, default=ROOT / "output" / "demo.mp4")
    parser.add_argument("--sheet", type=Path, default=ROOT / "output" / "before_after.png")
    o = parser.parse_args()
    before, after = frame_of(o.before, FRAME), frame_of(o.after, FRAME)
    divided(before, after, ICON_BOX, 400).save(ICON, optimize=True)
    divided(before, after, BANNER_BOX, 1260).save(BANNER, quality=88)
    sheet = Image.open(o.sheet).convert("RGB")
    sheet.thumbnail((README_WIDTH, sheet.height), Image.Resampling.LANCZOS)
    sheet.save(README_PICTURE, quality=88)


if __name__ == "__main__":
    main()
