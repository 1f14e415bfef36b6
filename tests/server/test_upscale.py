"""The shipped workflow on a real server, from the uploaded clip to the saved file."""

from __future__ import annotations

import time
from copy import deepcopy

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from clips import Clip, read_clip, shrink_clip
from graphs import STEPS, Graph, upscale, upscale_with_files

from scripts.server.comfy_server import PromptFailed, PromptInterrupted, PromptRejected

SAMPLER, DECODE = "UpscaleAVideoSegmentSampler", "UpscaleAVideoVAEDecode"
SEGMENTS = 2
GROUPS = 4
SMALL = (48, 32)


@pytest.fixture(scope="session")
def small_clip(sample_clip, tmp_path_factory):
    """Ten frames at half the size: SEGMENTS segments, GROUPS decode groups."""
    return shrink_clip(sample_clip, tmp_path_factory.mktemp("clips") / "small.mp4", 10, SMALL)


@pytest.fixture
def graph(comfy_server, small_clip) -> Graph:
    return upscale(comfy_server, small_clip)


def bicubic(clip: Clip) -> np.ndarray:
    frames = torch.from_numpy(clip.pixels).permute(0, 3, 1, 2).float()
    big = F.interpolate(frames, scale_factor=4, mode="bicubic").clamp(0, 255)
    return big.permute(0, 2, 3, 1).numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def progress(server, prompt_id: str, node: str) -> list[int]:
    """The values of a node's progress, in order."""
    values = []
    for event in server.events.all("progress", prompt_id):
        if str(event.data["node"]) == node:
            values.append(event.data["value"])
    return values


def test_a_fresh_install_has_a_working_first_choice_everywhere(comfy_server, graph):
    known = comfy_server.object_info()
    loaders = {
        "UpscaleAVideoUNetLoader": "unet_name",
        "UpscaleAVideoVAELoader": "vae_name",
        "UpscaleAVideoTextEncoderLoader": "text_encoder_name",
        "UpscaleAVideoFlowLoader": "flow_name",
    }
    for node, name in loaders.items():
        kind, options = known[node]["input"]["required"][name]
        first = (kind if isinstance(kind, list) else options["options"])[0]
        assert graph.prompt[graph.id(node)]["inputs"][name] == first


@pytest.mark.parametrize("weights", [upscale, upscale_with_files])
def test_the_clip_comes_out_four_times_as_large(comfy_server, small_clip, weights):
    graph = weights(comfy_server, small_clip)
    prompt_id = comfy_server.queue(graph.prompt)
    entry = comfy_server.wait(prompt_id)
    path = comfy_server.output_path(entry)
    source, result = read_clip(small_clip), read_clip(path)
    assert result.size == (source.size[0] * 4, source.size[1] * 4)
    assert (result.frames, result.fps) == (source.frames, source.fps)
    assert result.seconds_of_sound == pytest.approx(source.seconds_of_sound, abs=0.1)
    # Every frame must be its own enlargement: not mirrored, not of another moment, not in swapped
    # colours. (The generated VAE only interpolates.)
    expected = bicubic(source)
    own = [psnr(a, b) for a, b in zip(result.pixels, expected, strict=True)]
    assert min(own) > 24
    whole = psnr(result.pixels, expected)
    others = {
        "backwards": expected[::-1],
        "upside down": expected[:, ::-1],
        "mirrored": expected[:, :, ::-1],
        "blue for red": expected[..., ::-1],
    }
    for name, other in others.items():
        assert whole > psnr(result.pixels, other) + 5, name

    segments = progress(comfy_server, prompt_id, graph.id(SAMPLER))
    groups = progress(comfy_server, prompt_id, graph.id(DECODE))
    # ComfyUI leaves out what follows within a tenth of a second, but never the last.
    for values, pieces in ((segments, STEPS * SEGMENTS), (groups, GROUPS)):
        assert values == sorted(values) and values[-1] >= pieces
        assert len(set(values)) > pieces / 2
    assert any(event.kind == "preview" for event in comfy_server.events.all())

    # The same prompt again comes from the cache, node by node.
    again = comfy_server.queue(graph.prompt)
    assert comfy_server.output_path(comfy_server.wait(again)) == path
    cached = comfy_server.events.wait_for("execution_cached", again).data["nodes"]
    assert set(cached) == set(graph.prompt)


@pytest.mark.parametrize(
    ("kind", "slow"), [(SAMPLER, {"steps": 500}), (DECODE, {"frames_per_group": 1})]
)
def test_cancel_takes_effect_within_one_unit_of_work(comfy_server, graph, kind, slow):
    whole = deepcopy(graph.prompt)
    graph.set(SAMPLER, steps=1, seed=7).set("UpscaleAVideoPropagation", steps="")
    graph.set(kind, **slow)
    # Large enough that a unit of work takes longer than a message to the server.
    size = {"width": 128, "height": 96, "upscale_method": "bilinear", "crop": "disabled"}
    large = graph.add("ImageScale", image=frames_of(graph), **size)
    for node in ("UpscaleAVideoConditioning", "UpscaleAVideoPropagation", DECODE):
        graph.set(node, frames=large)
    prompt_id = comfy_server.queue(graph.prompt)
    deadline = time.monotonic() + 600
    while len(progress(comfy_server, prompt_id, graph.id(kind))) < 3:
        assert time.monotonic() < deadline
        assert not comfy_server.events.all("execution_error", prompt_id)
        time.sleep(0.02)
    comfy_server.interrupt()
    seen = progress(comfy_server, prompt_id, graph.id(kind))
    with pytest.raises(PromptInterrupted):
        comfy_server.wait(prompt_id)
    after = progress(comfy_server, prompt_id, graph.id(kind))
    assert max(after) - max(seen) <= 2, "the unit under way, and one message on its way"

    # The server goes on as if nothing had been.
    graph.prompt = whole
    graph.set(SAMPLER, steps=1).set(DECODE, frames_per_group=3)
    comfy_server.wait(comfy_server.queue(graph.prompt))


def frames_of(graph: Graph) -> list:
    return [graph.id("GetVideoComponents"), 0]


def alpha(graph: Graph) -> None:
    mask = graph.add("SolidMask", value=0.5, width=SMALL[0], height=SMALL[1])
    rgba = graph.add("JoinImageWithAlpha", image=frames_of(graph), alpha=mask)
    graph.set("UpscaleAVideoConditioning", frames=rgba)


def shorter(graph: Graph) -> None:
    some = graph.add("ImageFromBatch", image=frames_of(graph), batch_index=0, length=5)
    graph.set(DECODE, frames=some)


def tiny(graph: Graph) -> None:
    small = graph.add("EmptyImage", width=12, height=64, batch_size=2, color=0)
    graph.set("UpscaleAVideoConditioning", frames=small)


BAD = {
    "alpha channel": (alpha, "UpscaleAVideoConditioning", "alpha channel"),
    "another clip": (shorter, DECODE, "the same clip"),
    "too small": (tiny, "UpscaleAVideoConditioning", "at least 16 px"),
    "step outside": (
        lambda g: g.set("UpscaleAVideoPropagation", steps="1,2"),
        SAMPLER,
        "outside the run",
    ),
    "step not understood": (
        lambda g: g.set("UpscaleAVideoPropagation", steps="soon"),
        "UpscaleAVideoPropagation",
        "not understood",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_on_the_node(comfy_server, graph, name):
    spoil, kind, message = BAD[name]
    spoil(graph.set(SAMPLER, steps=1 if name == "another clip" else STEPS))
    if name == "another clip":
        graph.set("UpscaleAVideoPropagation", steps="")
    with pytest.raises(PromptFailed, match=message) as caught:
        comfy_server.run(graph.prompt)
    assert caught.value.details["node_type"] == kind
    assert caught.value.details["exception_type"].endswith("InputError")


def test_out_of_range_values_are_refused_before_anything_runs(comfy_server, graph):
    graph.set("UpscaleAVideoConditioning", noise_level=351)
    with pytest.raises(PromptRejected, match="350") as caught:
        comfy_server.queue(graph.prompt)
    assert set(caught.value.node_errors) == {graph.id("UpscaleAVideoConditioning")}


def test_a_file_outside_the_lists_is_refused(comfy_server, graph):
    outside = comfy_server.base / "models" / "vae" / "uav_vae_video.safetensors"
    for name in (f"../vae/../../{outside.name}", str(outside), "absent.safetensors"):
        # Newer ComfyUI checks the lists itself, 0.3.75 leaves it to the node.
        with pytest.raises((PromptRejected, PromptFailed), match=r"not in (list|models)"):
            comfy_server.run(graph.set("UpscaleAVideoVAELoader", vae_name=name).prompt)


def test_ten_runs_do_not_grow(comfy_server, graph):
    graph.set(SAMPLER, steps=1).set("UpscaleAVideoPropagation", steps="")
    process, sizes = psutil.Process(comfy_server.process.pid), []
    for seed in range(10):
        comfy_server.run(graph.set(SAMPLER, seed=100 + seed).prompt)
        sizes.append(process.memory_info().rss / 2**20)
    # A run that kept its models, its frames or its latents would add the 20 MiB of the U-Net or at
    # least 3 MiB each time, and every later sample would show it. A single sample may be taken
    # while ComfyUI still cleans up.
    assert min(sizes[-3:]) - sorted(sizes[:5])[2] < 12, sizes


def test_free_unloads_the_models(comfy_server, graph):
    graph.set(SAMPLER, steps=1, seed=1).set("UpscaleAVideoPropagation", steps="")

    def run() -> tuple[int, set[str]]:
        loaded = comfy_server.log_text().count("load UpscaleAVideoModel")
        prompt_id = comfy_server.queue(graph.prompt)
        comfy_server.wait(prompt_id)
        cached = comfy_server.events.wait_for("execution_cached", prompt_id).data["nodes"]
        return comfy_server.log_text().count("load UpscaleAVideoModel") - loaded, set(cached)

    run()
    assert run() == (0, set(graph.prompt)), "all of it is in the cache"
    comfy_server.free()
    # ComfyUI frees between two runs: on a busy machine the next one may come first.
    if (after := run()) != (1, set()):
        after = run()
    assert after == (1, set()), "the cache is empty, and the model has to be loaded again"
