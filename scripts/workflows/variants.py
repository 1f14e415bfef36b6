"""The shipped workflows besides the two plain ones: one image, a comparison, other sources."""

from __future__ import annotations

from scripts.workflows import notes
from scripts.workflows.forms import Graph, Out
from scripts.workflows.presets import INCLUDED
from scripts.workflows.presets import SETTINGS as SETTINGS_NODE
from scripts.workflows.stages import (
    FLAWS,
    LOWER,
    PICTURE,
    PITCH,
    QUALITY,
    SAMPLE,
    TALL,
    WIDE,
    Models,
    Stages,
)

# Colours of the groups by their content.
SOURCE, LOADERS, TEXT, SAMPLING, RESULT = "#3f789e", "#8A8", "#b58b2a", "#a1309b", "#88A"
SETTINGS = "#a55"
TILE = 128


def column(g: Stages, x: int, *, flow: bool = True, weight_dtype: str = "default") -> Models:
    """Add a column with the settings and, below them, the loaders."""
    g.settings(x + 10, 80)
    g.group("2  Settings", (x, 0, 340, 440), SETTINGS)
    g.group("3  Models", (x, 450, 340, TALL - 450), LOADERS)
    return g.models(x + 10, 530, weight_dtype, flow)


def upscale_groups(g: Stages, x: int, sampling: str = "Sampling along the motion") -> None:
    """Add the groups around the nodes of `Stages.upscale`."""
    g.group("4  Text and low-res conditioning", (x, 0, 340, 570), TEXT)
    g.group(f"5  {sampling}", (x + PITCH, 0, 340, TALL), SAMPLING)
    g.group("6  Decode and save", (x + 2 * PITCH, LOWER, 340, TALL - LOWER), RESULT)


def single_image() -> Graph:
    """One image through the same stages, without propagation."""
    g = Stages()
    image = g.put("LoadImage", (10, 80), (WIDE, 400), image=PICTURE)
    models = column(g, PITCH, flow=False)
    x = 2 * PITCH + 10
    texts = g.texts(x, 80, models.clip)
    conditioning = g.conditioning(x, 400, image, texts)
    latent = g.sampler(x + PITCH, 80, models.unet, conditioning)
    x += 2 * PITCH
    images = g.decode(x, 80 + LOWER, latent, models.vae, image)
    g.put("SaveImage", (x, 370 + LOWER), (WIDE, 420), images=images, filename_prefix="upscaled")
    g.group("1  Your image", (0, 0, 340, 490), SOURCE)
    upscale_groups(g, 2 * PITCH, "Sampling")
    g.note((0, 530), (340, TALL - 530), notes.IMAGE)
    g.note((2 * PITCH, 610), (340, TALL - 610), notes.authors(propagation=False))
    return g


def low_vram() -> Graph:
    """The plain workflow with all settings that save memory, at the cost of time."""
    g = Stages()
    frames, audio, fps = g.video(10, 80)
    models = column(g, PITCH, weight_dtype="fp8_e4m3fn")
    g.upscale(2 * PITCH + 10, models, frames, fps, audio, tile=TILE, frames_per_group=1)
    g.group("1  Your clip", (0, 0, 340, 570), SOURCE)
    upscale_groups(g, 2 * PITCH)
    g.note((0, 610), (340, TALL - 610), notes.LOW_VRAM)
    g.note((2 * PITCH, 610), (340, TALL - 610), notes.CHOOSE + "\n\n" + notes.authors())
    return g


def after_generator() -> Graph:
    """The stages to paste after any generator; here a clip takes the generator's place."""
    g = Stages()
    video = g.put("LoadVideo", (10, 80), (WIDE, 340), file=SAMPLE)
    parts = g.put("GetVideoComponents", (10, 460), (WIDE, 100), video=video, folded=True)
    frames = g.put(
        "ImageFromBatch",
        (10, 510),
        (WIDE, 90),
        title="Frames to upscale",
        image=parts,
        batch_index=0,
        length=4096,
    )
    # Generated frames are clean: measured on such clips, 0.6 is nearer to the original than 1.
    g.upscale(2 * PITCH + 10, column(g, PITCH), frames, 25.0, detail=0.6)
    g.group("1  In the generator's place", (0, 0, 340, 610), SOURCE)
    upscale_groups(g, 2 * PITCH)
    g.note((0, 650), (340, TALL - 650), notes.GENERATOR)
    g.note((2 * PITCH, 610), (340, TALL - 610), notes.CHOOSE + "\n\n" + notes.authors())
    return g


def compare_settings() -> Graph:
    """The input, bicubic, and two noise levels with two values of guidance each, as one picture.

    The settings that differ, and the steps, are separate nodes; nodes common to all are collapsed.
    """
    g = Stages()
    video = g.put("LoadVideo", (10, 80), (WIDE, 340), file=SAMPLE)
    frames = g.put("GetVideoComponents", (10, 460), (WIDE, 100), video=video, folded=True)
    piece = g.put(
        "ImageFromBatch",
        (10, 510),
        (WIDE, 90),
        title="The first eight frames",
        image=frames,
        batch_index=0,
        length=8,
    )
    models = g.one_kind(PITCH + 10, 80)
    levels, guidances = notes.LEVELS, notes.GUIDANCES
    number, y = {}, 340
    for title, value in (
        *((f"noise_level, {where}", value) for where, value in levels.items()),
        *((f"guidance, {where}", value) for where, value in guidances.items()),
        ("steps, of all four", INCLUDED[SETTINGS_NODE]["steps"]),
    ):
        kind = "PrimitiveFloat" if isinstance(value, float) else "PrimitiveInt"
        high = 60 if isinstance(value, float) else 85
        node = g.put(kind, (PITCH + 10, y), (WIDE, high), title=title, value=value)
        number[title], y = Out(node.node, 0, value), y + high + 40

    x = 2 * PITCH + 10

    def line(n: int) -> tuple[int, int]:
        """Position of the n-th collapsed node."""
        return x, 80 + 48 * n

    texts = [
        g.put(
            "CLIPTextEncode",
            line(n),
            (WIDE, 110),
            title=title,
            text=text,
            clip=models.clip,
            folded=True,
        )
        for n, (title, text) in enumerate(
            (("Positive prompt", QUALITY), ("Negative prompt", FLAWS))
        )
    ]
    propagation = g.propagation(*line(2), models.flow, piece, title="Propagation", folded=True)
    at, clips = 3, {}
    for level in levels:
        conditioning = g.conditioning(
            *line(at),
            piece,
            (texts[0], texts[1]),
            noise_level=number[f"noise_level, {level}"],
            title=f"Condition {level}",
            folded=True,
        )
        for n, guidance in enumerate(guidances):
            latent = g.sampler(
                *line(at + 1 + n),
                models.unet,
                conditioning,
                propagation=propagation,
                guidance=number[f"guidance, {guidance}"],
                steps=number["steps, of all four"],
                title=f"Sample {level} {guidance}",
                folded=True,
            )
            clips[level, guidance] = g.decode(
                *line(at + 3 + n),
                latent,
                models.vae,
                piece,
                title=f"Decode {level} {guidance}",
                folded=True,
            )
        at += 5
    pixels = g.put(
        "ImageScaleBy",
        line(at),
        (WIDE, 110),
        title="Input, enlarged",
        image=piece,
        upscale_method="nearest-exact",
        scale_by=4.0,
        folded=True,
    )
    x += PITCH
    # The comparison enlarges the smaller pictures (bicubic).
    known, rows = (("input", pixels), ("bicubic", piece)), []
    for row, level in enumerate(levels):
        compared = g.put(
            "UpscaleAVideoCompare",
            (x, 80 + 450 * row),
            (WIDE, 400),
            first=known[row][1],
            second=clips[level, "middle"],
            third=clips[level, "right"],
            names=f"{known[row][0]}, {notes.VERSIONS[row]}",
            title=f"Compare Videos, {level}",
        )
        rows.append(compared)
    x += PITCH
    grid = g.put(
        "ImageStitch",
        (x, 80 + LOWER),
        (WIDE, 150),
        title="One row under the other",
        image1=rows[0],
        image2=rows[1],
        direction="down",
        match_image_size=True,
    )
    g.save_video(x, 270 + LOWER, grid, Out(frames.node, 2), prefix="video/compared")
    g.group("1  Your clip", (0, 0, 340, 610), SOURCE)
    g.group("2  Models", (PITCH, 0, 340, 240), LOADERS)
    g.group("3  What differs", (PITCH, 250, 340, 660), SETTINGS)
    g.group("4  Alike for all, folded", (2 * PITCH, 0, 340, 730), SAMPLING)
    g.group("5  Compare", (3 * PITCH, 0, 340, 950), "#3a7a6a")
    g.group("6  All in one video", (4 * PITCH, LOWER, 340, 730), RESULT)
    g.note((0, 650), (340, TALL - 650), notes.COMPARE)
    g.note((2 * PITCH, 770), (340, TALL - 770), notes.authors(settings=False, files=False))
    return g
