"""Pictures put together: side by side, one above the other, with labels; and tables.

Pictures are ComfyUI's IMAGE, (t, h, w, 3) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import ui
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 2
BACKGROUND, INK, FAINT = (24, 24, 24), (235, 235, 235), (160, 160, 160)


def side_by_side(panels: Sequence[Tensor], labels: Sequence[str] | None = None) -> Tensor:
    """Panels (t, h, w, 3) of one size from left to right, with labels above unless None.

    Sides are made even, as video encoders want them.
    """
    return _joined(panels, labels, dim=2)


def stacked(panels: Sequence[Tensor], labels: Sequence[str] | None = None) -> Tensor:
    """Panels (1, h, w, 3) of one width from top to bottom, with labels above each unless None."""
    return _joined(panels, labels, dim=1)


def filled(picture: Tensor, h: int, w: int) -> Tensor:
    """A picture (t, h0, w0, 3) centred on a background of (h, w), which must not be smaller."""
    t, h0, w0, c = picture.shape
    if (h0, w0) == (h, w):
        return picture
    result = _colour(picture, BACKGROUND).expand(t, h, w, c).clone()
    top, left = (h - h0) // 2, (w - w0) // 2
    result[:, top : top + h0, left : left + w0] = picture
    return result


def middle(frames: Tensor) -> Tensor:
    """The middle frame of an IMAGE (t, h, w, 3), as (1, h, w, 3)."""
    at = len(frames) // 2
    return frames[at : at + 1]


def on_node(picture: Tensor, text: str = "") -> dict[str, Any]:
    """The picture and text that a node shows. Pages show texts only on ComfyUI's own nodes."""
    return {**ui.PreviewImage(picture).as_dict(), **({"text": (text,)} if text else {})}


def table_picture(cells: Sequence[Sequence[str]], notes: Sequence[str], size: int = 16) -> Tensor:
    """A picture (1, h, w, 3) of a table and notes; all but the first column are right-aligned."""
    font, small = ImageFont.load_default(size), ImageFont.load_default(size - 3)
    line, margin, gap = round(1.6 * size), size, round(1.4 * size)
    widths = [max(font.getlength(cell) for cell in column) for column in zip(*cells, strict=True)]
    wide = max(sum(widths) + gap * (len(widths) - 1), *(small.getlength(note) for note in notes), 1)
    height = line * (len(cells) + len(notes)) + size // 2 + 2 * margin
    picture = Image.new("RGB", (round(wide) + 2 * margin, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    y = margin
    for number, row in enumerate(cells):
        x = float(margin)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            offset = 0 if column == 0 else width - font.getlength(cell)
            draw.text((x + offset, y), cell, fill=FAINT if number < 2 else INK, font=font)
            x += width + gap
        y += line
    y += size // 2
    for note in notes:
        draw.text((margin, y), note, fill=FAINT, font=small)
        y += line
    return _tensor(picture)


def _labelled(panel: Tensor, label: str) -> Tensor:
    """The panel with its label on a strip above; unchanged if the label is empty."""
    if not label:
        return panel
    t, h, w, _ = panel.shape
    size = max(11, min(28, min(h, w) // 14))
    strip = Image.new("RGB", (w, round(1.7 * size)), BACKGROUND)
    font = ImageFont.load_default(size)
    draw = ImageDraw.Draw(strip)
    draw.text((w / 2, strip.height / 2), label, fill=INK, font=font, anchor="mm")
    return torch.cat([_tensor(strip).to(panel).expand(t, -1, -1, -1), panel], dim=1)


def _joined(panels: Sequence[Tensor], labels: Sequence[str] | None, dim: int) -> Tensor:
    """The panels one after the other along `dim`, with a gap in between; sides made even."""
    names = labels or [""] * len(panels)
    parts = [_labelled(*pair) for pair in zip(panels, names, strict=True)]
    shape = list(parts[0].shape)
    shape[dim] = GAP
    gap = _colour(parts[0], BACKGROUND).expand(shape)
    spaced = [piece for part in parts for piece in (gap, part)][1:]
    picture = torch.cat(spaced, dim=dim)
    # ``filled`` rounds down, so the added line is at the bottom or at the right.
    return filled(picture, *(side + side % 2 for side in picture.shape[1:3]))


def _colour(like: Tensor, rgb: tuple[int, int, int]) -> Tensor:
    return like.new_tensor(rgb).div(255).view(1, 1, 1, 3)


def _tensor(picture: Image.Image) -> Tensor:
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.view(1, picture.height, picture.width, 3).float().div(255)
