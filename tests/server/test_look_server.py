"""Seeing before and beside the run, on a real server: piece, estimate, pictures, live preview."""

from __future__ import annotations

import io

import numpy as np
import pytest
from clips import read_clip, shrink_clip
from graphs import Graph, upscale
from PIL import Image

SAMPLER, DECODE = "UpscaleAVideoSegmentSampler", "UpscaleAVideoVAEDecode"
SIZE, FRAMES = (48, 32), 10


@pytest.fixture(scope="session")
def little_clip(sample_clip, tmp_path_factory):
    return shrink_clip(sample_clip, tmp_path_factory.mktemp("look") / "little.mp4", FRAMES, SIZE)


@pytest.fixture
def graph(comfy_server, little_clip) -> Graph:
    return upscale(comfy_server, little_clip)


def pictures(server) -> list[Image.Image]:
    """The live previews, as the page gets them."""
    found = []
    for event in server.events.all("preview"):
        start = event.data.find(b"\xff\xd8")
        if start >= 0:
            found.append(Image.open(io.BytesIO(event.data[start:])).convert("RGB"))
    return found


def frames_of(graph: Graph) -> list:
    return [graph.id("GetVideoComponents"), 0]


def test_the_live_preview_looks_like_the_clip(comfy_server, graph, little_clip, artifacts):
    before = len(pictures(comfy_server))
    graph.set(SAMPLER, seed=123)
    comfy_server.wait(comfy_server.queue(graph.prompt))
    seen = pictures(comfy_server)[before:]
    assert len(seen) >= 2, "two segments, two steps; some may be skipped on the way"
    last = seen[-1]
    last.save(artifacts / f"live_preview_{comfy_server.base.name}.png")
    clip = read_clip(little_clip).pixels.astype(np.float64)
    shown = np.asarray(last.resize(SIZE)).astype(np.float64)
    # The last segment is frames 2 to 9, and its middle 6; colours of the wrong VAE are far off.
    errors = [np.abs(shown - frame).mean() for frame in clip]
    assert errors[6] < 30
    assert int(np.argmin(errors)) in range(4, 9)


def test_a_piece_with_its_estimate(comfy_server, graph):
    video = [graph.id("LoadVideo"), 0]
    texts = graph.prompt[graph.id("UpscaleAVideoConditioning")]["inputs"]
    settings = {
        "first_frame": 2, "frames": 3, "x": 8, "y": 4, "width": 24, "height": 16,
        "noise_level": 20, "steps": 2, "guidance": 1.0, "propagation_steps": "last 1",
        "color_fix": "wavelet", "seed": 1, "propagation_strength": 0.5,
    }  # fmt: skip
    links = {
        "model": [graph.id("UpscaleAVideoUNetLoader"), 0],
        "vae": [graph.id("UpscaleAVideoVAELoader"), 0],
        "positive": texts["positive"],
        "negative": texts["negative"],
        "clip": video,
    }
    node, _ = graph.add("UpscaleAVideoPreviewCrop", **links, **settings)
    keep(graph, node)
    prompt_id = comfy_server.queue(graph.prompt)
    entry = comfy_server.wait(prompt_id)
    (text,) = entry["outputs"][node]["text"]
    assert text.startswith(f"Estimate for all {FRAMES} frames of 48x32: ")
    with Image.open(comfy_server.output_path(entry, node)) as shown:
        assert shown.size[0] == 2 * 4 * 24 + 2


def test_pictures_of_flow_scenes_and_differences(comfy_server, graph):
    frames, video = frames_of(graph), [graph.id("LoadVideo"), 0]
    flow, _ = graph.add("UpscaleAVideoShowFlow", frames=frames)
    strip, _ = graph.add("UpscaleAVideoSceneStrip", clip=video, cut_detection="built-in", height=48)
    scaled = graph.add(
        "ImageScale", image=frames, width=96, height=64, upscale_method="area", crop="disabled"
    )
    names = {"factor": 0.0, "names": "one, two"}
    apart, _ = graph.add("UpscaleAVideoShowDifference", first=frames, second=scaled, **names)
    split, _ = graph.add("UpscaleAVideoBeforeAfter", before=frames, after=scaled, position=0.5)
    nodes = [flow, strip, apart, split]
    keep(graph, *nodes)
    entry = comfy_server.wait(comfy_server.queue(graph.prompt))
    for node in nodes:
        with Image.open(comfy_server.output_path(entry, node)) as shown:
            assert np.asarray(shown).std() > 5
    assert entry["outputs"][strip]["text"] == ["0"]


def test_another_size_with_alpha(comfy_server, graph):
    """Split, shrink, upscale, alpha, join, finish: all sockets fit each other."""
    mask = graph.add("SolidMask", value=0.25, width=48, height=32)
    sizes = {"target": "exact size", "factor": 2.0, "short_side": 64, "width": 100, "height": 100}
    size, _ = graph.add(
        "UpscaleAVideoOutputSize", frames=frames_of(graph), use="before upscaling (fast)",
        aspect="pad", **sizes,
    )  # fmt: skip
    for kind in ("UpscaleAVideoConditioning", "UpscaleAVideoPropagation", DECODE):
        graph.set(kind, frames=[size, 0])
    joined = graph.add("UpscaleAVideoAlpha", alpha=mask, frames=[graph.id(DECODE), 0])
    done = graph.add("UpscaleAVideoFinishOutputSize", frames=joined, plan=[size, 1])
    shown, _ = graph.add("PreviewImage", images=done)
    keep(graph, shown)
    entry = comfy_server.wait(comfy_server.queue(graph.prompt))
    with Image.open(comfy_server.output_paths(entry, shown)[0]) as picture:
        assert picture.mode == "RGBA" and picture.size == (100, 100)
        alpha = np.asarray(picture)[..., 3]
    assert (alpha[:14] == 0).all() and (np.abs(alpha[30:70].astype(int) - 191) <= 1).all()


def test_the_native_slider_takes_our_frames_where_it_is(comfy_server, graph):
    if "ImageCompare" not in comfy_server.object_info():
        pytest.skip("this ComfyUI has no 'Compare Images'")
    frames = frames_of(graph)
    node, _ = graph.add("ImageCompare", image_a=frames, image_b=frames, compare_view=None)
    keep(graph, node)
    entry = comfy_server.wait(comfy_server.queue(graph.prompt))
    assert len(entry["outputs"][node]["a_images"]) == FRAMES


def keep(graph: Graph, *nodes: str) -> None:
    """Only these nodes and what they need."""
    needed, left = set(), list(nodes)
    while left:
        key = left.pop()
        if key in needed:
            continue
        needed.add(key)
        left += [
            str(value[0])
            for value in graph.prompt[key]["inputs"].values()
            if isinstance(value, list) and len(value) == 2 and str(value[0]) in graph.prompt
        ]
    graph.prompt = {key: node for key, node in graph.prompt.items() if key in needed}
