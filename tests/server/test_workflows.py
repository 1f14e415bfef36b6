"""Every shipped workflow beside the two plain ones runs to its end on a real server."""

from __future__ import annotations

import numpy as np
import pytest
from clips import first_frame, read_clip, shrink_clip, shrunk
from graphs import Graph, shortened
from PIL import Image

from scripts.server.comfy_server import PACK_FOLDER
from scripts.workflows import blueprint

SIZE, FRAMES = (48, 32), 3
LARGE = (4 * SIZE[0], 4 * SIZE[1])
SAMPLER, DECODE = "UpscaleAVideoSegmentSampler", "UpscaleAVideoVAEDecode"


@pytest.fixture(scope="session")
def tiny_clip(sample_clip, tmp_path_factory):
    """Three frames at half the size."""
    return shrink_clip(sample_clip, tmp_path_factory.mktemp("tiny") / "tiny.mp4", FRAMES, SIZE)


@pytest.fixture
def frame(tiny_clip, tmp_path):
    """Its first frame as a picture."""
    return first_frame(tiny_clip, tmp_path / "frame.png")


def saved(server, graph: Graph, kind: str = "SaveVideo"):
    """Run; the one file that the workflow saves."""
    return server.output_path(server.run(graph.prompt), graph.id(kind))


def check_upscaled(source: np.ndarray, result: np.ndarray) -> None:
    """Four times as large, every picture the enlargement of its own."""
    assert result.shape[2:0:-1] == LARGE
    assert len(result) == len(source)
    assert np.abs(shrunk(result) - source).mean() < 12


def test_a_single_image(comfy_server, frame):
    graph = shortened("single_image", comfy_server)
    graph.set("LoadImage", image=comfy_server.upload(frame))
    with Image.open(saved(comfy_server, graph, "SaveImage")) as result:
        check_upscaled(np.asarray(Image.open(frame))[None], np.asarray(result)[None])


def test_with_little_memory(comfy_server, tiny_clip):
    graph = shortened("low_vram", comfy_server)
    graph.set("LoadVideo", file=comfy_server.upload(tiny_clip))
    # Smaller than the clip, or there would be one tile only.
    graph.set("UpscaleAVideoTiles", tile=32, overlap=8).set(DECODE, tile=32, tile_overlap=8)
    result = read_clip(saved(comfy_server, graph))
    check_upscaled(read_clip(tiny_clip).pixels, result.pixels)


def test_old_footage(comfy_server, tiny_clip):
    graph = shortened("old_footage", comfy_server)
    graph.set("LoadVideo", file=comfy_server.upload(tiny_clip))
    graph.set("UpscaleAVideoLongVideoOptions", deinterlace="top")  # the clip has no fields
    entry = comfy_server.run(graph.prompt)
    node = graph.id("UpscaleAVideoLongVideo")
    result = read_clip(comfy_server.output_path(entry, node))
    source = read_clip(tiny_clip)
    assert result.size == (2 * SIZE[0], 2 * SIZE[1]) and result.frames == source.frames
    (text,) = entry["outputs"][node]["text"]
    assert "deinterlaced into one frame" in text


def test_after_a_generator(comfy_server, tiny_clip):
    """A clip stands in for a generator; only one input takes its frames."""
    graph = shortened("after_generator", comfy_server)
    graph.set("LoadVideo", file=comfy_server.upload(tiny_clip))
    frames = [graph.id("GetVideoComponents"), 0]
    inputs = [node["inputs"] for node in graph.prompt.values()]
    assert [frames in each.values() for each in inputs].count(True) == 1
    check_upscaled(read_clip(tiny_clip).pixels, read_clip(saved(comfy_server, graph)).pixels)


def test_four_settings_side_by_side(comfy_server, tiny_clip):
    graph = shortened("compare_settings", comfy_server)
    graph.set("LoadVideo", file=comfy_server.upload(tiny_clip))
    graph.set("ImageFromBatch", length=2)
    entry = comfy_server.run(graph.prompt)
    result = read_clip(comfy_server.output_path(entry, graph.id("SaveVideo")))
    assert result.frames == 2
    assert result.size[0] > 3 * LARGE[0] and result.size[1] > 2 * LARGE[1]
    tables = [entry["outputs"][key]["text"][0] for key in graph.ids("UpscaleAVideoCompare")]
    for names, table in zip(("input, as shipped", "bicubic, smoother"), tables, strict=True):
        assert all(f"\n{name}" in table for name in names.split(", "))


def test_the_blueprint_is_listed(comfy_server):
    """Its run is in the browser's tests: only the page turns it into something to run."""
    listed = comfy_server.get("/global_subgraphs").values()
    (entry,) = (entry for entry in listed if entry["name"] == blueprint.NAME)
    assert entry["source"] == "custom_node"
    assert entry["info"]["node_pack"].endswith(PACK_FOLDER)
