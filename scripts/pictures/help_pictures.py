"""Make the pictures of the nodes' help, `web/docs/*.jpg`, by running the nodes.

It uses the included weights and a few frames of `assets/sample.mp4`. `help_screenshots.py` makes
the pictures of nodes that show only text or settings.

    python -m scripts.pictures.help_pictures [NAME ...]
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from scripts.env.layout import ROOT, comfyui_path, default_version
from scripts.server.load_pack import start_comfyui
from uav_core.weights import included

DOCS = ROOT / "web" / "docs"
LARGEST = 45_000
WIDEST = 900
# One segment of a part of the clip, so that all pictures take minutes on two cores. PART and DETAIL
# are top, left, height and width; DETAIL is in the upscaled part.
FRAMES, SHOWN = 8, 4
PART = (14, 30, 48, 64)
DETAIL = (4, 20, 160, 200)

log = logging.getLogger("help_pictures")


def main() -> None:
    """Make all pictures, or those named on the command line."""
    wanted = sys.argv[1:] or list(PICTURES)
    sys.argv = [sys.argv[0], "--cpu"]
    sys.path.insert(0, str(comfyui_path(default_version())))
    start_comfyui(None)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    DOCS.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        for name in wanted:
            save(PICTURES[name](), DOCS / f"{name}.jpg")


def save(picture: torch.Tensor, path: Path) -> None:
    """Write one frame of an IMAGE as a JPEG of at most LARGEST bytes."""
    pixels = (picture[0, ..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if image.width > WIDEST:
        height = round(image.height * WIDEST / image.width)
        image = image.resize((WIDEST, height), Image.Resampling.LANCZOS)
    for quality in range(90, 40, -5):
        image.save(path, quality=quality, optimize=True)
        if path.stat().st_size <= LARGEST:
            break
    log.info("%s: %dx%d, %d bytes", path.name, *image.size, path.stat().st_size)


# --- shared by the pictures: the nodes, the clip, runs of them -----------------------------


@cache
def pack() -> Any:
    """The pack, imported as ComfyUI imports it."""
    spec = importlib.util.spec_from_file_location(
        "uav_pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["uav_pack"] = module
    spec.loader.exec_module(module)
    return module


def run(node: Any, *args: Any, **inputs: Any) -> Any:
    """Run a node. Returns its outputs, or the output itself if there is only one."""
    result = node.execute(*args, **inputs).result
    return result[0] if len(result) == 1 else result


def nodes() -> Any:
    """The pack's node modules."""
    return pack().nodes


@cache
def video(name: str, frames: int = FRAMES) -> torch.Tensor:
    """The first frames of a clip in `assets`, as IMAGE."""
    sys.path.append(str(ROOT / "tests" / "support"))
    clips: Any = importlib.import_module("clips")
    pixels = clips.read_clip(ROOT / "assets" / name).pixels[:frames]
    return torch.from_numpy(pixels).float() / 255


def cut(frames: torch.Tensor, factor: int = 1) -> torch.Tensor:
    """The part of a clip that is upscaled."""
    top, left, h, w = (factor * side for side in PART)
    return frames[:, top : top + h, left : left + w]


@cache
def clip() -> torch.Tensor:
    """The clip to upscale, 64x48."""
    return cut(video("sample.mp4"))


@cache
def original() -> torch.Tensor:
    """The same part from the larger source, four times as large."""
    return cut(video("sample_x4.mp4"), 4)


@cache
def bicubic() -> torch.Tensor:
    """The clip enlarged without a model."""
    large = F.interpolate(clip().movedim(-1, 1), scale_factor=4, mode="bicubic", antialias=True)
    return large.clamp(0, 1).movedim(1, -1)


@cache
def unet() -> Any:
    """The included U-Net."""
    loader = nodes().loaders.load.LoadUNet
    return run(loader, loader.define_schema().inputs[0].options[0], "default")


@cache
def vae(kind: str = "vae_video") -> Any:
    """An included VAE."""
    loader = nodes().loaders.load.LoadVAE
    (name,) = (n for n in loader.define_schema().inputs[0].options if f"{kind} (" in n)
    return run(loader, name)


@cache
def texts() -> dict[str, Any]:
    """Encoded texts, as in the shipped workflow."""
    loader = nodes().loaders.load.LoadTextEncoder
    encoder = run(loader, loader.define_schema().inputs[0].options[0])
    native: Any = importlib.import_module("nodes")
    encode = native.CLIPTextEncode().encode
    return {
        "positive": encode(encoder, "best quality, extremely detailed")[0],
        "negative": encode(encoder, "blur, worst quality")[0],
    }


@cache
def plan(strength: float) -> Any:
    """Propagation at the last two steps, along the built-in flow."""
    loader = nodes().loaders.load.LoadFlowModel
    flow = run(loader, loader.define_schema().inputs[0].options[0])
    return run(
        nodes().sampling.propagate.Propagation, flow, clip(), "last 2", strength, 0.001, 0.05
    )


@cache
def sampled(
    noise_level: int = 20,
    steps: int = included.STEPS,
    guidance: float = 1.0,
    propagated: bool = True,
    propagation_strength: float = 0.5,
    tile: int = 0,
    overlap: int = 16,
) -> Any:
    """A sampled latent; the defaults are the settings of the included weights."""
    conditioning = nodes().sampling.condition.LowResConditioning
    conditioned = run(conditioning, clip(), noise_level=noise_level, seed=0, **texts())
    model = run(nodes().sampling.tiles.Tiles, unet(), tile, overlap) if tile else unet()
    settings = {"steps": steps, "guidance": guidance, "seed": 0, "segment_length": 8, "overlap": 2}
    propagation = plan(propagation_strength) if propagated else None
    return run(
        nodes().sampling.sample.SegmentSampler,
        model,
        *conditioned,
        propagation=propagation,
        **settings,
    )


@cache
def decoded(kind: str, **run_: Any) -> Any:
    """Upscaled frames before the colour fix."""
    return run(
        nodes().sampling.decode.VAEDecode, sampled(**run_), vae(kind), clip(), 1.0, 8, "none"
    )


def upscaled(color: str = "wavelet", kind: str = "vae_video", **run_: Any) -> torch.Tensor:
    """Upscaled frames; ``run_`` is for `sampled`."""
    clips = (decoded(kind, **run_), clip())
    large, small = (frames.movedim(-1, 0)[None] * 2 - 1 for frames in clips)
    fixed = pack().uav_core.frames.color.color_fix(large, small, color)
    return nodes().base.inputs.to_images(fixed)


def detail(frames: torch.Tensor, at: int = SHOWN) -> torch.Tensor:
    """The detail of one frame, at twice its size."""
    top, left, h, w = DETAIL
    part = frames[at : at + 1, top : top + h, left : left + w]
    return part.repeat_interleave(2, 1).repeat_interleave(2, 2)


def row(panels: Sequence[torch.Tensor], labels: Sequence[str]) -> torch.Tensor:
    """One frame of several clips next to each other."""
    return nodes().look.panels.side_by_side(panels, labels)


def profiles(versions: dict[str, torch.Tensor], line: float) -> torch.Tensor:
    """One line of every frame, stacked over time, for each version."""
    metrics, compare = pack().uav_core.metrics, nodes().look.compare
    pictures = []
    for frames in versions.values():
        signed = frames.movedim(-1, 0)[None] * 2 - 1
        profile = metrics.temporal_profile(signed, row=round(line * (frames.shape[1] - 1)))
        pictures.append(compare.drawn_out(profile).repeat_interleave(2, 2))
    return nodes().look.panels.stacked(pictures, list(versions))


# --- the pictures --------------------------------------------------------------------------


def before_after() -> torch.Tensor:
    """Bicubic, the included weights, and the original."""
    versions = {
        "bicubic": bicubic(),
        "included weights": upscaled(),
        "original": original(),
    }
    return row([detail(frames) for frames in versions.values()], list(versions))


def noise_level() -> torch.Tensor:
    """Noise levels."""
    levels = (20, 120, 250)
    return row(
        [detail(upscaled(noise_level=level)) for level in levels],
        [f"noise_level {level}" for level in levels],
    )


def looks() -> torch.Tensor:
    """The looks of the node Settings."""
    known = pack().uav_core.sampling.presets.table()["included"]["look"]
    return row([detail(upscaled(**values)) for values in known.values()], list(known))


def guidance() -> torch.Tensor:
    """Guidance."""
    values = (1.0, 4.0)
    return row(
        [detail(upscaled(guidance=value)) for value in values],
        [f"guidance {value:g}" for value in values],
    )


def steps() -> torch.Tensor:
    """Steps."""
    values = (1, 2, 4)
    return row(
        [detail(upscaled(steps=value, propagated=False)) for value in values],
        [f"{value} step{'s' * (value > 1)}" for value in values],
    )


def propagation() -> torch.Tensor:
    """Flicker with and without propagation."""
    versions = {
        "propagation off, a line of every frame over time": upscaled(propagated=False),
        "propagation on": upscaled(),
    }
    return profiles(versions, 0.5)


def both_vaes() -> torch.Tensor:
    """Both VAEs along time."""
    versions = {
        "vae_3d, a line of every frame over time": upscaled(kind="vae_3d", color="none"),
        "vae_video": upscaled(color="none"),
    }
    return profiles(versions, 0.5)


def color_fix() -> torch.Tensor:
    """Colour fixes."""
    modes = ("none", "adain", "wavelet")
    small = clip().repeat_interleave(4, 1).repeat_interleave(4, 2)
    return row(
        [detail(small), *(detail(upscaled(color=mode)) for mode in modes)],
        ["input", *modes],
    )


def detail_values() -> torch.Tensor:
    """The dial of the node Detail."""
    values = (0.0, 0.5, 1.0)
    dial = nodes().frames.detail.Detail
    return row(
        [detail(run(dial, upscaled(), clip(), value)) for value in values],
        [f"detail {value:g}" for value in values],
    )


def tiles() -> torch.Tensor:
    """Tiles against the whole frame."""
    versions = {
        "whole frame": upscaled(propagated=False),
        "tile 32, overlap 0": upscaled(propagated=False, tile=32, overlap=0),
        "tile 32, overlap 16": upscaled(propagated=False, tile=32),
    }
    return row([frames[SHOWN : SHOWN + 1] for frames in versions.values()], list(versions))


def flow() -> torch.Tensor:
    """Motion, and where it is trusted."""
    frames = video("sample.mp4")
    _, motion, trusted = run(nodes().look.show.ShowFlow, frames)
    small = (frames, motion, trusted[..., None].expand(-1, -1, -1, 3))
    panels = [p[SHOWN : SHOWN + 1].repeat_interleave(3, 1).repeat_interleave(3, 2) for p in small]
    return row(panels, ["frame", "motion to the next", "trusted (white)"])


def difference() -> torch.Tensor:
    """What propagation changes."""
    show = nodes().look.show.ShowDifference
    pair = upscaled(propagated=False), upscaled()
    return run(show, *pair, 0.0, "propagation off, propagation on")[0][SHOWN : SHOWN + 1]


def wipe() -> torch.Tensor:
    """Before and after."""
    return run(nodes().look.show.ShowBeforeAfter, clip(), upscaled(), 0.5)[SHOWN : SHOWN + 1]


def compare() -> torch.Tensor:
    """Versions side by side."""
    node = nodes().look.compare.Compare
    given = {"third": None, "reference": original()}
    result = run(node, clip(), upscaled(), "bicubic, upscaled", True, 0.5, **given)
    return result[0][SHOWN : SHOWN + 1]


def scene_strip() -> torch.Tensor:
    """Scenes; as the sample has only one, enlarged and mirrored parts of it are the others."""
    large = video("sample_x4.mp4", 25)
    wide = F.interpolate(
        large[:, :128, :192].movedim(-1, 1), (256, 384), mode="bicubic", antialias=True
    ).movedim(1, -1)
    film = torch.cat([large[:12], wide[:10].clamp(0, 1), large.flip(2)[:14]])
    return run(nodes().look.scene_strip.SceneStrip, film, "built-in", 160)[0]


def preview_crop() -> torch.Tensor:
    """A piece of the clip."""
    node = nodes().look.preview_crop.PreviewCrop
    settings = {
        "noise_level": 20,
        "steps": included.STEPS,
        "guidance": 1.0,
        "propagation_steps": "last 2",
    }
    settings |= {"color_fix": "wavelet", "seed": 0, "propagation_strength": 0.5}
    large, plain, _ = run(
        node, unet(), vae(), clip(), 0, 4, 8, 4, 40, 32, frames_per_group=8, **settings, **texts()
    )
    twice = [p[2:3].repeat_interleave(2, 1).repeat_interleave(2, 2) for p in (plain, large)]
    return row(twice, ["bicubic", "upscaled"])


def output_size() -> torch.Tensor:
    """Aspects of an exact size."""
    size, aspects = nodes().frames.output_size, ("fit", "pad", "crop", "stretch")
    wanted = {"target": "exact size", "width": 160, "height": 192}
    shown = [
        run(size.SetOutputSize, upscaled(), size.AFTER, **wanted, aspect=aspect)[0]
        for aspect in aspects
    ]
    panels = [nodes().look.panels.filled(frames[SHOWN : SHOWN + 1], 192, 160) for frames in shown]
    return row(
        panels, [f"{a}: {f.shape[2]}x{f.shape[1]}" for a, f in zip(aspects, shown, strict=True)]
    )


def alpha() -> torch.Tensor:
    """A soft alpha, made from the brightness of the frames, on a checkerboard."""
    grey = clip().mean(-1)
    known = ((grey - grey.mean()) * 8 + 0.5).clamp(0, 1)
    rgba, _ = run(nodes().frames.alpha.UpscaleAlpha, 1 - known, upscaled())
    plain = F.interpolate(known[:, None], scale_factor=4, mode="bilinear")[:, 0]
    pictures = [
        on_checkerboard(upscaled(), plain[..., None]),
        on_checkerboard(rgba[..., :3], rgba[..., 3:]),
    ]
    return row([detail(p) for p in pictures], ["alpha enlarged (bilinear)", "Upscale Alpha"])


def matte() -> torch.Tensor:
    """A hard matte, made from the brightness of the frames."""
    grey = clip().mean(-1)
    known = (grey > grey.mean()).float()
    large, _ = run(nodes().frames.matte.UpscaleMatte, known, upscaled())
    plain = F.interpolate(known[:, None], scale_factor=4, mode="bicubic").movedim(1, -1)
    pictures = [upscaled(), plain.clamp(0, 1).expand(-1, -1, -1, 3), large]
    labels = ["upscaled frames", "matte enlarged (bicubic)", "Upscale Matte or Depth"]
    return row([detail(p) for p in pictures], labels)


def on_checkerboard(frames: torch.Tensor, opaque: torch.Tensor) -> torch.Tensor:
    """Frames over a checkerboard."""
    h, w = frames.shape[1:3]
    y, x = torch.meshgrid(torch.arange(h) // 8, torch.arange(w) // 8, indexing="ij")
    board = 0.35 + 0.3 * ((x + y) % 2).float()[None, ..., None]
    return frames * opaque + board * (1 - opaque)


def segments() -> torch.Tensor:
    """The segments of 25 frames, as planned."""
    planned = pack().uav_core.sampling.segments.plan_segments(25, 8, 2)
    cell, high = 30, 34
    picture = torch.full((1, high * (len(planned) + 1), cell * 25, 3), 24 / 255)
    thumbs = F.interpolate(
        video("sample.mp4", 25).movedim(-1, 1), (high - 6, cell - 2), mode="area"
    ).movedim(1, -1)
    for line, frames in enumerate([range(25), *planned]):
        for frame in frames if isinstance(frames, range) else range(frames.start, frames.stop):
            top, left = line * high + 3, frame * cell + 1
            picture[0, top : top + high - 6, left : left + cell - 2] = thumbs[frame]
    return picture


PICTURES: dict[str, Callable[[], torch.Tensor]] = {
    made.__name__: made
    for made in (
        before_after,
        noise_level,
        looks,
        guidance,
        steps,
        propagation,
        both_vaes,
        color_fix,
        detail_values,
        tiles,
        flow,
        difference,
        wipe,
        compare,
        scene_strip,
        preview_crop,
        output_size,
        alpha,
        matte,
        segments,
    )
}


if __name__ == "__main__":
    main()
