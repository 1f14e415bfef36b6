"""The picture of the demo: a frame in several versions side by side, with details."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CELL, GAP, LABEL = 384, 8, 30
ZOOM, DETAILS = 3, 2
PAPER, INK = "#16181d", "#f2f2f2"
FRAMES = ("#ffb347", "#6ec6ff")  # of the outlines of the details, in the first version

Box = tuple[int, int, int, int]


def before_after(versions: Mapping[str, Image.Image], show: str) -> Image.Image:
    """A column for each version: the whole frame, then details, enlarged.

    ``versions`` are pictures of one size by their labels. The details are taken where the version
    ``show`` has most contrast.
    """
    (size,) = {picture.size for picture in versions.values()}
    cell = (CELL, round(CELL * size[1] / size[0]))
    # Size of a detail that fills a cell; smaller frames are shown without details.
    window = (CELL // ZOOM, cell[1] // ZOOM)
    boxes = busiest(versions[show], window, DETAILS)
    rows = 1 + len(boxes)
    width = len(versions) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, LABEL + rows * (cell[1] + GAP)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    for column, (label, picture) in enumerate(versions.items()):
        x = GAP + column * (CELL + GAP)
        draw.text((x + CELL // 2, LABEL // 2), label, INK, font, anchor="mm")
        whole = picture.resize(cell, Image.Resampling.LANCZOS)
        if column == 0:
            outline(whole, boxes, CELL / size[0])
        sheet.paste(whole, (x, LABEL))
        for row, box in enumerate(boxes, start=1):
            detail = picture.crop(box).resize(cell, Image.Resampling.BICUBIC)
            y = LABEL + row * (cell[1] + GAP)
            sheet.paste(detail, (x, y))
            draw.rectangle((x, y, x + 4, y + cell[1] - 1), FRAMES[row - 1])
    return sheet


def outline(picture: Image.Image, boxes: list[Box], scale: float) -> None:
    """Outline the places of the details."""
    draw = ImageDraw.Draw(picture)
    for box, color in zip(boxes, FRAMES, strict=False):
        draw.rectangle([round(side * scale) for side in box], outline=color, width=2)


def busiest(picture: Image.Image, window: tuple[int, int], count: int) -> list[Box]:
    """The ``count`` windows of (width, height) with most contrast that do not overlap."""
    w, h = window
    grey = np.asarray(picture.convert("L"), dtype=np.float64)
    if w > grey.shape[1] or h > grey.shape[0]:
        return []
    down, right = np.gradient(grey)
    table = np.pad(np.hypot(down, right).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = table[h:, w:] - table[:-h, w:] - table[h:, :-w] + table[:-h, :-w]
    boxes: list[Box] = []
    while len(boxes) < count and total.max() > 0:
        y, x = np.unravel_index(int(total.argmax()), total.shape)
        boxes.append((int(x), int(y), int(x) + w, int(y) + h))
        total[max(y - h + 1, 0) : y + h, max(x - w + 1, 0) : x + w] = 0
    return boxes
