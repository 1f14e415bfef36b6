"""The long-video nodes, inside ComfyUI, against the nodes that hold a clip whole."""

from __future__ import annotations

import importlib
import os
import shutil
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graph
import pytest
import torch
from safetensors.torch import load_file, save_file

from uav_core.jobs import FOLDER, list_jobs

T, H, W = 9, 16, 24
SETTINGS = {
    "noise_level": 60,
    "steps": 2,
    "guidance": 3.0,
    "propagation_steps": "1",
    "color_fix": "none",
    "seed": 5,
    "filename_prefix": "clips/long",
}


@pytest.fixture
def folders(pack, tmp_path, monkeypatch):
    import folder_paths

    output, temp = tmp_path / "output", tmp_path / "temp"
    output.mkdir()
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(output))
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(temp))
    return SimpleNamespace(output=output, temp=temp)


@pytest.fixture
def networks(pack):
    load = pack.nodes.loaders.load
    return {
        "model": load.LoadUNet.execute("unet.safetensors", "fp32").result[0],
        "vae": load.LoadVAE.execute("vae_3d.safetensors").result[0],
        "flow_model": load.LoadFlowModel.execute(load.BUILTIN_FLOW).result[0],
    }


def video(images: torch.Tensor, audio=None):
    from comfy_api.input_impl import VideoFromComponents
    from comfy_api.util import VideoComponents

    return VideoFromComponents(VideoComponents(images=images, audio=audio, frame_rate=Fraction(10)))


def options(pack, **changes):
    settings = {
        "codec": "ffv1",
        "container": ".mkv",
        "crf": -1,
        "pixel_format": "auto",
        "cut_detection": "off",
        "cuts": "",
        "tile": 0,
        "tile_overlap": 16,
        "propagation_strength": 0.5,
        "part_length": 4,
    }
    node = pack.nodes.longvideo.upscale.LongVideoOptions
    return node.execute(**{**settings, **changes}).result[0]


def run(pack, networks, clip, **changes):
    positive, negative = graph.texts()
    given = {"positive": positive, "negative": negative, "options": options(pack)}
    node = pack.nodes.longvideo.upscale.UpscaleLongVideo
    return node.execute(**{**networks, **given, **SETTINGS, **changes, "video": clip})


def whole(pack, networks, images):
    """The same by the nodes for clips."""
    positive, negative, latent = graph.conditioned(pack, images, noise_level=60)
    plan = pack.nodes.sampling.propagate.Propagation.execute(
        networks["flow_model"], images, "1", 0.5, 0.001, 0.05
    ).result[0]
    sampled = pack.nodes.sampling.sample.SegmentSampler.execute(
        networks["model"], positive, negative, latent, 2, 3.0, 5, 8, 2, plan
    ).result[0]
    return pack.nodes.sampling.decode.VAEDecode.execute(
        sampled, networks["vae"], images, 1.0, 3, "none"
    ).result[0]


def levels(images: torch.Tensor) -> torch.Tensor:
    return images.mul(255).round().div(255)


def test_it_makes_what_the_nodes_for_clips_make(pack, networks, folders):
    images = levels(graph.frames(T))
    vae = pack.nodes.loaders.load.LoadVAE.execute("vae_video.safetensors").result[0]
    networks = {**networks, "vae": vae}  # whose decoder sees the input
    result = run(pack, networks, video(images))
    made = result.result[0].get_components()
    assert made.images.shape == (T, 4 * H, 4 * W, 3)
    assert made.frame_rate == 10
    expected = whole(pack, networks, images)
    path = result.result[0].get_stream_source()
    # Read by our own reader: ComfyUI's turns 8-bit RGB into floats less exactly.
    pixels = torch.stack(list(pack.uav_core.video.VideoReader(path))).movedim(1, -1).add(1).div(2)
    assert (pixels - expected).abs().max() < 1e-3 + 0.5 / 255
    report = result.result[1]
    assert f"{T} frames of {4 * W}x{4 * H}.\n1 scene, no cuts." in report
    (saved,) = result.ui["images"]
    path = folders.output / saved["subfolder"] / saved["filename"]
    assert path.is_file() and saved["subfolder"] == "clips"
    assert path.name.startswith("long_") and path.suffix == ".mkv"
    assert not list(folders.temp.iterdir()), "the copy in the temp folder is gone"


def test_guidance_in_a_part_of_the_run(pack, networks, folders):
    images = levels(graph.frames(T))
    chosen = {"guidance_start": 0.5, "guidance_end": 1.0}
    part, all_of_it = (
        run(pack, networks, video(images), options=options(pack, **changes)).result[0]
        for changes in (chosen, {})
    )
    assert part.get_stream_source() != all_of_it.get_stream_source()
    positive, negative, latent = graph.conditioned(pack, images, noise_level=60)
    plan = pack.nodes.sampling.propagate.Propagation.execute(
        networks["flow_model"], images, "1", 0.5, 0.001, 0.05
    ).result[0]
    sampled = pack.nodes.sampling.sample.SegmentSampler.execute(
        networks["model"], positive, negative, latent, 2, 3.0, 5, 8, 2, plan, 0.5, 1.0
    ).result[0]
    expected = pack.nodes.sampling.decode.VAEDecode.execute(
        sampled, networks["vae"], images, 1.0, 3, "none"
    ).result[0]
    reader = pack.uav_core.video.VideoReader(part.get_stream_source())
    pixels = torch.stack(list(reader)).movedim(1, -1).add(1).div(2)
    assert (pixels - expected).abs().max() < 1e-3 + 0.5 / 255


def test_sound_comes_along(pack, networks, folders):
    wave = torch.sin(torch.arange(T * 800) / 20).expand(1, 2, -1)
    clip = video(levels(graph.frames(T)), {"waveform": wave, "sample_rate": 8000})
    made = run(pack, networks, clip).result[0].get_components()
    assert made.audio["sample_rate"] == 8000
    assert made.audio["waveform"].shape[-1] == pytest.approx(T * 800, abs=1100)


@pytest.mark.parametrize("name", ["", "shot.%04d.exr"])
def test_numbered_pictures_are_refused_with_what_to_do(pack, name, tmp_path):
    from comfy_api.input_impl import VideoFromFile

    clip = VideoFromFile(str(tmp_path / name))
    with (
        pytest.raises(pack.uav_core.InputError, match=r"uav_core\.cli FOLDER_IN"),
        pack.nodes.longvideo.video_file.video_file(clip),
    ):
        pass


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 9])
def test_all_channels_of_the_sound_are_kept(pack, channels):
    import av

    wave = torch.zeros(1, channels, 100_000)
    wave[0, :, 90_000] = torch.arange(1, channels + 1) / 10
    clip = video(levels(graph.frames(T)), {"waveform": wave, "sample_rate": 48000})
    with pack.nodes.longvideo.video_file.video_file(clip) as (path, _), av.open(path) as container:
        frames = list(container.decode(audio=0))
    samples = torch.cat([torch.from_numpy(f.to_ndarray()) for f in frames], 1)
    assert torch.equal(samples.view(-1, channels).T, wave[0])


@pytest.mark.parametrize(
    ("wave", "says"),
    [
        (torch.zeros(2, 2, 100), r"expected \(1, channels, samples\)"),
        (torch.zeros(2, 100), r"expected \(1, channels, samples\)"),
        (torch.full((1, 2, 100), float("nan")), "NaN"),
    ],
)
def test_sound_that_cannot_be_kept_is_refused(pack, wave, says):
    clip = video(levels(graph.frames(T)), {"waveform": wave, "sample_rate": 48000})
    with (
        pytest.raises(pack.uav_core.InputError, match=says),
        pack.nodes.longvideo.video_file.video_file(clip),
    ):
        pass


def test_a_trimmed_file_is_read_where_it_lies(pack, networks, folders, tmp_path, monkeypatch):
    from comfy_api.input_impl import VideoFromFile

    if not hasattr(VideoFromFile, "as_trimmed"):
        pytest.skip("this ComfyUI trims no files")
    images, path = levels(graph.frames(T)), tmp_path / "source.mkv"
    pack.nodes.longvideo.video_file.write_lossless(str(path), video(images).get_components())
    clip = VideoFromFile(str(path)).as_trimmed(0.3, 0.5)

    def held(_):
        raise AssertionError("the clip was held in memory")

    with monkeypatch.context() as patch:
        patch.setattr(VideoFromFile, "get_components", held)
        made = run(pack, networks, clip).result[0]
        strip = pack.nodes.look.scene_strip.SceneStrip.execute(clip, "off", 64)
    first, stop = 3, 8
    read = pack.uav_core.video.VideoReader
    cut = torch.stack(list(read(made.get_stream_source()))).movedim(1, -1).add(1).div(2)
    expected = whole(pack, networks, images[first:stop])
    assert cut.shape == expected.shape
    assert (cut - expected).abs().max() < 1e-3 + 0.5 / 255
    assert strip.result[1] == "0", "no cuts in the part"


def cropping() -> type:
    """ComfyUI's VIDEO of a file; where it cannot be cropped yet, one that can, as later ones do."""
    from comfy_api.input_impl import VideoFromFile as Here

    if hasattr(Here, "as_cropped"):
        return Here

    class VideoFromFile(Here):
        rectangle: tuple[int, int, int, int] | None = None

        def as_cropped(self, x: int, y: int, width: int, height: int) -> VideoFromFile:
            cropped = VideoFromFile(self.get_stream_source())
            cropped.rectangle = x, y, width, height
            return cropped

        def get_dimensions(self) -> tuple[int, int]:
            return self.rectangle[2:] if self.rectangle else super().get_dimensions()

        def get_components(self) -> Any:
            made = super().get_components()
            if self.rectangle:
                x, y, w, h = self.rectangle
                made.images = made.images[:, y : y + h, x : x + w]
            return made

    return VideoFromFile


@pytest.mark.parametrize("said", [False, True])
def test_a_crop_that_a_node_set_is_kept(pack, folders, tmp_path, said):
    images, path = levels(graph.frames(4, 32, 48)), tmp_path / "source.mkv"
    pack.nodes.longvideo.video_file.write_lossless(str(path), video(images).get_components())
    clip: Any = cropping()(str(path))
    assert not pack.nodes.longvideo.video_file.is_edited(clip)
    cropped = clip.as_cropped(8, 4, 32, 16)
    if said:  # as the newest do, and the size alone would not tell
        cropped.has_pending_frame_edits = lambda: True
        cropped.get_dimensions = clip.get_dimensions
    with pack.nodes.longvideo.video_file.video_file(cropped) as (read, span):
        frames = torch.stack(list(pack.uav_core.video.VideoReader(read)))
    assert span is None
    expected = images[:, 4:20, 8:40].movedim(-1, 1) * 2 - 1
    torch.testing.assert_close(frames, expected, rtol=0, atol=2.1 / 255)
    assert not list(folders.temp.iterdir())


def test_a_damaged_file_is_no_edit(pack, tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all")
    assert not pack.nodes.longvideo.video_file.is_edited(cropping()(str(path)))


def set_on(pack, model) -> dict[str, Any]:
    """The MODEL with what nodes set on it besides patches of its weights, by the node's name."""
    import comfy.sd
    import comfy_extras.nodes_model_advanced as advanced

    lora = {}
    for name, shape in (("up", (32, 4)), ("down", (4, 32))):
        key = f"diffusion_model.{QUERIES}.lora_{name}.weight"
        lora[key] = torch.full(shape, 0.7, dtype=torch.float16)  # a run makes it fp32, for good
    bypass = getattr(comfy.sd, "load_bypass_lora_for_models", None)  # not in old ComfyUI
    return {
        "RescaleCFG": advanced.RescaleCFG().patch(model, 0.7)[0],
        "RescaleCFG, weaker": advanced.RescaleCFG().patch(model, 0.5)[0],
        "ModelSamplingDiscrete": advanced.ModelSamplingDiscrete().patch(model, "eps", False)[0],
        "ModelSamplingDiscrete, x0": advanced.ModelSamplingDiscrete().patch(model, "x0", False)[0],
        "tiles": pack.nodes.sampling.tiles.with_tiles(model, 16, 0),
        "smaller tiles": pack.nodes.sampling.tiles.with_tiles(model, 8, 0),
        **(
            {f"bypass LoRA {s}": bypass(model, None, lora, s, 0)[0] for s in (0.5, 0.9)}
            if bypass
            else {}
        ),
    }


QUERIES = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q"


def test_what_is_set_on_the_model_makes_another_job(pack, networks, tmp_path):
    """Not the same as a finished job, nor parts of two models in one video."""
    import comfy.hooks

    positive, negative = graph.texts()
    plain = networks["model"]

    def weights(model, text=positive):
        engine = pack.nodes.longvideo.engine.ComfyEngine(
            model, networks["vae"], text, negative, networks["flow_model"], params
        )
        return dict(engine.weights(tmp_path))

    params = pack.uav_core.longvideo.LongVideoParams()
    models, usual = set_on(pack, plain), weights(plain)
    names = {"unet", "unet dtype", "patches", "vae", "flow", "positive", "negative", "device"}
    assert set(usual) == names, "jobs made before still match"
    hashes = pack.uav_core.weights.hashes.weights_hash
    assert usual["unet"] == hashes(plain.cached_patcher_init[1][0], tmp_path), "not of the tensors"
    # Segments are planned elsewhere, and memory does not change frames.
    segments = pack.nodes.sampling.segments.with_segments(plain, 8, 2)
    # In ComfyUI 0.3.75 a clone does not know its file any more.
    assert {**weights(segments), "unet": usual["unet"]} == usual
    found = {name: weights(model) for name, model in models.items()}
    different = [usual, *found.values()]
    assert all(a != b for i, a in enumerate(different) for b in different[:i])
    # Made anew, as after a restart, or used meanwhile, they are the same.
    assert found == {name: weights(model) for name, model in set_on(pack, plain).items()}
    for model in models.values():
        graph.sample(pack, model, graph.frames(3), steps=1)
    assert found == {name: weights(model) for name, model in models.items()}
    # LoRA hooks on a text.
    key = f"diffusion_model.{QUERIES}.lora_up.weight"
    texts = [
        comfy.hooks.set_hooks_for_conditioning(
            positive, comfy.hooks.create_hook_lora({key: torch.ones(32, 4)}, strength, 0.0)
        )
        for strength in (0.5, 0.9, 0.9)
    ]
    weak, strong, again = (weights(plain, text) for text in texts)
    assert weak != strong == again != usual


def test_a_job_is_known_by_the_weights_in_memory(pack, networks, models, tmp_path):
    """Not by a file that took the place of theirs, nor by what a run leaves in them."""
    import comfy.model_management as mm
    import comfy.sd

    load, engine = pack.nodes.loaders.load, pack.nodes.longvideo.engine
    texts, params = graph.texts(), pack.uav_core.longvideo.LongVideoParams()
    lora = {
        f"diffusion_model.{QUERIES}.lora_{name}.weight": torch.full(shape, 0.7)
        for name, shape in (("up", (32, 4)), ("down", (4, 32)))
    }

    def weights(model, vae):
        made = engine.ComfyEngine(model, vae, *texts, networks["flow_model"], params)
        found = made.weights(tmp_path)
        return found["unet"], found["vae"]

    def loaded():
        unet, vae = (str(tmp_path / f"{name}.safetensors") for name in ("unet", "vae_3d"))
        return load.load_unet(unet), load.VideoVAE(vae)

    for name in ("unet", "vae_3d"):
        shutil.copy(models / "upscale_a_video" / f"{name}.safetensors", tmp_path)
    model, vae = loaded()
    patched = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]
    before = weights(patched, vae)
    graph.sample(pack, patched, graph.frames(3), steps=1)
    assert weights(patched, vae) == before

    for name in ("unet", "vae_3d"):
        path = tmp_path / f"{name}.safetensors"
        tensors = {key: value.clone() for key, value in load_file(path).items()}
        tensors["conv_in.weight" if name == "unet" else "decoder.conv_in.weight"] *= 2
        save_file(tensors, tmp_path / "new")
        os.replace(tmp_path / "new", path)
    old, new = weights(model, vae), weights(*loaded())
    assert all(a != b for a, b in zip(old, new, strict=True))
    in_use = weights(patched, vae)
    assert in_use == old
    mm.unload_all_models()
    assert weights(patched, vae) == in_use


def test_a_digest_is_of_what_a_run_does_not_change(pack):
    """And of what is chosen; it ends and does not raise, whatever custom nodes set on a model."""
    digest = pack.nodes.longvideo.identity.digest

    def averaging(momentum: float):
        mean = 0.0

        def step(x: float) -> float:
            nonlocal mean
            mean = momentum * mean + (1 - momentum) * x
            return mean

        return step

    function = averaging(0.5)
    before = digest(function)
    function(3.0)
    assert digest(function) == before == digest(averaging(0.5)) != digest(averaging(0.6))
    assert digest(partial(print, 3)) == digest(partial(print, 3)) != digest(partial(print, 4))
    assert digest({SimpleNamespace: 1}) != digest({SimpleNamespace: 2})

    def itself(x: int) -> int:
        return itself(x - 1)

    loop: dict[str, Any] = {}
    loop["loop"] = loop
    friends = [SimpleNamespace() for _ in range(50)]
    for friend in friends:
        friend.friends = friends
    odd = (itself, loop, friends, importlib, torch.empty(3, device="meta"), object(), len)
    assert len({digest(value) for value in odd}) == len(odd)


def test_it_goes_on_after_a_cancel(pack, networks, folders, monkeypatch):
    import comfy.model_management as mm

    clip = video(levels(graph.frames(T)))
    undisturbed = run(pack, networks, clip)
    first = Path(undisturbed.result[0].get_stream_source())
    wanted = first.read_bytes()
    job = next((folders.output / "upscale_a_video_jobs").glob("*/manifest.json")).parent
    first.unlink()

    engine, calls = pack.nodes.longvideo.engine.ComfyEngine, []
    decode = engine.decode

    def cancelled(self, *args):
        calls.append(1)
        if len(calls) == 3:
            mm.interrupt_current_processing(True)
        return decode(self, *args)

    upscale, told = pack.nodes.longvideo.upscale, []
    monkeypatch.setattr(upscale, "show_text", lambda node, text: told.append(text))
    monkeypatch.setattr(engine, "decode", cancelled)
    with pytest.raises(mm.InterruptProcessingException):
        run(pack, networks, clip)
    assert told[-1] == upscale.STOPPED != told[-2], "not the stage it was in"
    monkeypatch.setattr(engine, "decode", decode)
    assert list(job.glob("part_*"))
    again = run(pack, networks, clip)
    assert "were already finished by an earlier run" in again.result[1]
    assert Path(again.result[0].get_stream_source()).read_bytes() == wanted


def test_memory_running_out_is_survived(pack, networks, folders, monkeypatch):
    engine, calls = pack.nodes.longvideo.engine.ComfyEngine, []
    decode = engine.decode

    def short(self, latents, frames, setting):
        calls.append(latents.shape[2])
        if latents.shape[2] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return decode(self, latents, frames, setting)

    monkeypatch.setattr(engine, "decode", short)
    report = run(pack, networks, video(levels(graph.frames(T)))).result[1]
    assert "Memory ran out while decoding" in report
    assert calls[:2] == [3, 3] and max(calls[2:]) == 2, "in stripes first, which give the same"


def test_tiles_go_through_the_model(pack, networks, folders):
    plain = run(pack, networks, video(levels(graph.frames(T))))
    tiled = run(
        pack,
        networks,
        video(levels(graph.frames(T))),
        options=options(pack, tile=16, tile_overlap=8),
    )
    a, b = (r.result[0].get_components().images for r in (plain, tiled))
    assert a.shape == b.shape and not torch.equal(a, b)
    assert (a - b).abs().mean() < 0.1


@pytest.mark.parametrize(
    ("changes", "size", "text"),
    [
        ({}, (4 * W, 4 * H), ""),
        ({"factor": 2.0}, (2 * W, 2 * H), f", resized after upscaling from {4 * W}x{4 * H}"),
        (
            {"output_size": "exact size", "width": 90, "height": 48, "aspect": "pad"},
            (90, 48),
            f", resized after upscaling from {4 * W}x{4 * H}",
        ),
    ],
)
def test_other_sizes_than_4x(pack, networks, folders, changes, size, text):
    images = levels(graph.frames(3))
    result = run(pack, networks, video(images), options=options(pack, **changes))
    w, h = size
    assert result.result[0].get_components().images.shape == (3, h, w, 3)
    assert f"3 frames of {w}x{h}{text}." in result.result[1]


def test_resized_before_or_after(pack, networks, folders):
    """By the nodes for clips: 'Output Size', the stages, and 'Finish Output Size'."""
    nodes, images = pack.nodes.frames.output_size, levels(graph.frames(3, 32, 48))
    wanted = {"target": "short side", "short_side": 60}
    read = pack.uav_core.video.VideoReader
    for use in (nodes.BEFORE, nodes.AFTER):
        made = run(
            pack,
            networks,
            video(images),
            options=options(pack, output_size="short side", short_side=60, resize=use),
        ).result[0]
        got = torch.stack(list(read(made.get_stream_source()))).movedim(1, -1).add(1).div(2)
        if use == nodes.BEFORE:
            small, plan, _ = nodes.SetOutputSize.execute(images, use, **wanted).result
            expected = nodes.FinishOutputSize.execute(whole(pack, networks, small), plan).result[0]
        else:
            large = whole(pack, networks, images)
            expected = nodes.SetOutputSize.execute(large, use, **wanted).result[0]
        assert got.shape == expected.shape == (3, 60, 90, 3)
        assert (got - expected).abs().max() < 1e-3 + 0.5 / 255


def test_sizes_out_of_reach_are_refused(pack, networks, folders):
    clip = video(levels(graph.frames(2)))
    large = options(pack, output_size="short side", short_side=1080)
    with pytest.raises(Exception, match="expected 1 to 4 times"):
        run(pack, networks, clip, options=large)
    with pytest.raises(Exception, match="The factor is 5"):
        options(pack, factor=5.0)
    with pytest.raises(Exception, match="expected 'before upscaling"):
        options(pack, resize="never")
    assert not list(folders.output.rglob("part_*"))


def test_the_command_knows_the_nodes(pack):
    """What it sends to a server: inputs that are there, with values from their lists."""
    core = pack.uav_core
    importlib.import_module(f"{core.__name__}.cli.remote.graph")
    parts, sizes = core.cli.remote.graph, core.frames.output_size
    encode, weights = core.video.EncodeParams(), parts.WeightNames()
    params = core.longvideo.LongVideoParams(
        size=sizes.OutputSize("exact size", width=90, height=48, aspect="crop"),
        resize="before",
        guided=core.sampling.guidance.GuidanceRange(0.25, 0.75),
        deinterlace="always",
        self_ensemble=True,
        detail=0.5,
    )
    graphs = [
        parts.long_video_graph(p, encode, weights)
        for p in (core.longvideo.LongVideoParams(), params)
    ]
    plain, sized = (made["options"]["inputs"] for made in graphs)
    runs = [made[parts.UPSCALE]["inputs"] for made in graphs]
    inputs = pack.nodes.longvideo.upscale.UpscaleLongVideo.define_schema().inputs
    assert set(runs[1]) == {entry.id for entry in inputs} and runs[1]["detail"] == 0.5
    assert "detail" not in runs[0]
    known = {i.id: i for i in pack.nodes.longvideo.upscale.LongVideoOptions.define_schema().inputs}
    assert set(sized) == set(known)
    for name, value in sized.items():
        assert value in (getattr(known[name], "options", None) or [value]), name
    made = pack.nodes.longvideo.upscale.LongVideoOptions.execute(**sized).result[0]
    assert {name: made.run[name] for name in ("size", "resize", "guided", "deinterlace")} == {
        "size": params.size,
        "resize": params.resize,
        "guided": params.guided,
        "deinterlace": "always",
    }
    # As before there was a choice: older packs take it, and fetched results are still known.
    assert set(known) - set(plain) == {
        "output_size",
        "factor",
        "short_side",
        "width",
        "height",
        "aspect",
        "resize",
        "guidance_start",
        "guidance_end",
        "deinterlace",
        "self_ensemble",
    }


@pytest.mark.parametrize("prefix", ["../outside", "/etc/passwd", "a/../../b", "C:\\x\\..\\..\\y"])
def test_paths_stay_in_the_output_folder(pack, networks, folders, prefix):
    try:
        result = run(pack, networks, video(levels(graph.frames(2))), filename_prefix=prefix)
    except ValueError as error:
        assert "UnsafePath" in type(error).__name__
    except Exception as error:
        assert "UnsafePath" in type(error).__name__, error
    else:
        path = Path(result.result[0].get_stream_source()).resolve()
        assert folders.output.resolve() in path.parents


def test_the_tokens_of_a_prefix_are_those_of_save_video(pack, networks, folders):
    before = time.strftime("%Y-%m")
    clip = video(levels(graph.frames(2)))
    made = run(
        pack, networks, clip, filename_prefix="v/%year%-%month%/%date:yyyy-MM%_%width%x%height%"
    )
    path = Path(made.result[0].get_stream_source())
    assert path.name.startswith(f"{before}_96x64_"), "a run over the end of a month: try again"
    assert path.parent == folders.output / "v" / before
    # Another day is not another job: what is finished is copied.
    again = run(pack, networks, clip, filename_prefix="elsewhere/x")
    other = Path(again.result[0].get_stream_source())
    assert other.parent == folders.output / "elsewhere"
    assert other.read_bytes() == path.read_bytes() and "Copied from" in again.result[1]


@pytest.mark.parametrize("prefix", ["%KSampler.seed%", "a/%Load Video.file%_x"])
def test_tokens_that_only_the_page_knows_are_named(pack, prefix):
    with pytest.raises(pack.uav_core.InputError, match="refers to the value"):
        pack.nodes.longvideo.upscale.output_place("out", prefix)


@pytest.mark.parametrize(
    ("form", "strftime"),
    [("yyyy-MM-dd", "%Y-%m-%d"), ("yyMMdd", "%y%m%d"), ("dd.MM.yyyy hh", "%d.%m.%Y %H")],
)
def test_dates_are_written_as_the_page_writes_them(pack, form, strftime):
    assert pack.nodes.longvideo.prefix.resolved(f"a%date:{form}%", 0, 0) == "a" + time.strftime(
        strftime
    )
    assert pack.nodes.longvideo.prefix.resolved("100% sure", 0, 0) == "100% sure"


def test_what_is_no_temporal_vae_is_refused(pack, networks, folders):
    with pytest.raises(Exception, match="not a temporal VAE"):
        run(pack, {**networks, "vae": object()}, video(graph.frames(2)))


def test_what_is_no_video_is_refused(pack, networks, folders):
    with pytest.raises(Exception, match="expected a VIDEO"):
        run(pack, networks, graph.frames(2))


def test_lora_makes_it_another_job(pack, networks, folders):
    clip = video(levels(graph.frames(2)))
    first = run(pack, networks, clip).result[0].get_stream_source()
    model = networks["model"].clone()
    key = "diffusion_model.conv_in.weight"
    weight = model.model.state_dict()[key]
    model.add_patches({key: ("diff", (torch.full_like(weight, 0.01),))}, 1.0)
    second = run(pack, {**networks, "model": model}, clip).result[0].get_stream_source()
    assert first != second


def test_jobs_are_listed_and_removed(pack, networks, folders):
    result = run(pack, networks, video(levels(graph.frames(2))))
    node = pack.nodes.longvideo.jobs.LongVideoJobs
    listed = node.execute("list", 7.0, True).result[0]
    assert "finished" in listed and "2/2 frames" in listed and "1 job kept" in listed
    assert "0 jobs removed" in node.execute("remove", 7.0, True).result[0]
    assert "1 job would be removed" in node.execute("what would be removed", 0.0, True).result[0]
    assert "1 job removed" in node.execute("remove", 0.0, True).result[0]
    assert "0 jobs kept" in node.execute("list", 7.0, True).result[0]
    assert Path(result.result[0].get_stream_source()).is_file(), "the video stays"


def test_jobs_are_removed_down_to_a_bound(pack, networks, folders):
    for count in (2, 3):
        run(pack, networks, video(levels(graph.frames(count))))
    node = pack.nodes.longvideo.jobs.LongVideoJobs
    most = 1.5 * max(job.bytes for job in list_jobs(folders.output / FOLDER)) / 2**30
    act = "what would be removed"
    assert "0 jobs" in node.execute(act, 7.0, True).result[0], "0 is no bound"
    assert "0 jobs" in node.execute(act, 7.0, True, 2.0).result[0]
    assert "1 job would" in node.execute(act, 7.0, True, most).result[0]
    assert "1 job removed" in node.execute("remove", 7.0, True, most).result[0]
    assert len(list_jobs(folders.output / FOLDER)) == 1
