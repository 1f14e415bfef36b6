"""Whole jobs on real files, with the quickest networks."""

from __future__ import annotations

import json
import random
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import tiny
import torch
from generated import det
from safetensors import SafetensorError

from uav_core.errors import DiskFullError, InputError
from uav_core.files import hash_file
from uav_core.flow import estimate
from uav_core.flow.builtin import BuiltinFlow
from uav_core.flow.estimate import estimate_flows
from uav_core.frames.color import color_fix
from uav_core.jobs import job as jobs_job
from uav_core.jobs import list_jobs
from uav_core.longvideo import CoreEngine, LongVideo, LongVideoParams, Span, scene
from uav_core.longvideo import run as long_run
from uav_core.longvideo.parts import ladders
from uav_core.longvideo.source import Source, frames_of_span
from uav_core.sampling.guidance import GuidanceRange
from uav_core.sampling.ladder import OutOfMemoryError, Setting
from uav_core.sampling.noise import LATENT, LOW_RES, frame_noise
from uav_core.sampling.pipeline import bicubic, decode, sample
from uav_core.video import (
    EncodeError,
    EncodeParams,
    FrameTimes,
    InputChangedError,
    VideoReader,
    frame_times,
)
from uav_core.video.scenes import SceneParams
from uav_core.video.writing.sound import usual_layout

W, H = 24, 16
CUT, FRAMES = 11, 21
LOSSLESS = EncodeParams("ffv1", ".mkv")
PARAMS = LongVideoParams(
    steps=2,
    guidance=3.0,
    noise_level=60,
    seed=3,
    propagation_steps="last 1",
    flow_iterations=2,
    cuts=str(CUT),
    part_length=5,
    scenes=SceneParams(shortest=2),
)


def picture(name: str, t: int, brightness: float = 0.3) -> torch.Tensor:
    """(t, H, W, 3) uint8: a soft texture that moves."""
    wide = det(name, (1, 3, 6, 9)).mul(0.2).add(brightness)
    wide = torch.nn.functional.interpolate(wide, (H, W + t), mode="bicubic")[0].clamp(0, 1)
    frames = torch.stack([wide[:, :, i : i + W] for i in range(t)])
    return (frames.permute(0, 2, 3, 1) * 255).round().byte()


def write(path: Path, pixels: torch.Tensor, pixel_format: str = "bgr0") -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = W, H, pixel_format
        for frame in pixels:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.numpy()), "rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("clips")
    one, two = picture("one", CUT), picture("two", FRAMES - CUT, 0.7)
    return {
        "both": write(folder / "both.mkv", torch.cat((one, two))),
        "one": write(folder / "one.mkv", one),
        "two": write(folder / "two.mkv", two),
    }


class Engine(CoreEngine):
    """The core's engine; ``trouble(stage, setting)`` is asked before every piece of work."""

    def __init__(
        self,
        params: LongVideoParams = PARAMS,
        trouble=lambda stage, setting: None,
        unet: str = "00" * 8,
        vae: str = "vae_3d",
    ):
        super().__init__(
            tiny.quick_unet(),
            tiny.quick_vae(vae),
            tiny.context(),
            BuiltinFlow(),
            params,
            {"unet": unet, "vae": "11" * 8},
        )
        self.trouble = trouble

    def predict(self, latent, step, low_res, setting):
        self.trouble("sample", setting)
        return super().predict(latent, step, low_res, setting)

    def flow(self, earlier, later, setting):
        self.trouble("flow", setting)
        return super().flow(earlier, later, setting)

    def decode(self, latents, frames, setting):
        self.trouble("decode", setting)
        return super().decode(latents, frames, setting)


def run(source, folder, params=PARAMS, encode=LOSSLESS, trouble=None, unet="00" * 8, **options):
    engine = Engine(params, trouble, unet) if trouble else Engine(params, unet=unet)
    return LongVideo(source, folder, engine, params, encode, **options).run()


def pixels(path: str | Path) -> torch.Tensor:
    """(t, 3, h, w) in [-1, 1]."""
    return torch.stack(list(VideoReader(path)))


def expected(path: Path, params: LongVideoParams = PARAMS, vae: str = "vae_3d") -> torch.Tensor:
    """The scene in ``path`` upscaled at once, by the core's plain pipeline."""
    frames = pixels(path).transpose(0, 1)[None]
    t = frames.shape[2]
    latents = sample(
        tiny.quick_unet(),
        frames,
        tiny.context(),
        steps=PARAMS.steps,
        guidance=PARAMS.guidance,
        guided=params.guided,
        noise_level=PARAMS.noise_level,
        noise=frame_noise(PARAMS.seed, LATENT, range(t), 4, H, W),
        low_res_noise=frame_noise(PARAMS.seed, LOW_RES, range(t), 3, H, W),
        flows=estimate_flows(BuiltinFlow(), frames, PARAMS.flow_iterations),
        propagation_steps=(1,),
    )
    result = decode(tiny.quick_vae(vae), latents, frames, self_ensemble=params.self_ensemble)
    return color_fix(result, frames, PARAMS.color)[0].transpose(0, 1)


@pytest.fixture(scope="module")
def whole(clips, tmp_path_factory) -> Path:
    """The result of an undisturbed run."""
    return Path(run(clips["both"], tmp_path_factory.mktemp("whole")).output)


def test_a_scene_is_what_the_pipeline_makes_of_it(clips, whole):
    got = pixels(whole)
    assert got.shape == (FRAMES, 3, 4 * H, 4 * W)
    wanted = torch.cat((expected(clips["one"]), expected(clips["two"])))
    assert (got - wanted).abs().max() <= 1.01 / 255  # half a level either way, of [-1, 1]


def test_the_decoder_sees_the_input(clips, tmp_path):
    engine = Engine(PARAMS, vae="vae_video")
    params = replace(PARAMS, cuts="0")
    report = LongVideo(clips["one"], tmp_path, engine, params, LOSSLESS).run()
    wanted = expected(clips["one"], params, "vae_video")
    assert (pixels(report.output) - wanted).abs().max() <= 1.01 / 255


def test_guidance_in_a_part_of_the_run(clips, whole, tmp_path):
    params = replace(PARAMS, cuts="0", guided=GuidanceRange(0.5, 1))
    got = pixels(run(clips["one"], tmp_path, params).output)
    assert (got - expected(clips["one"], params)).abs().max() <= 1.01 / 255
    assert (got - pixels(whole)[:CUT]).abs().max() > 2 / 255, "it makes a difference"


def test_a_self_ensemble(clips, whole, tmp_path):
    params = replace(PARAMS, cuts="0", self_ensemble=True)
    got = pixels(run(clips["one"], tmp_path, params).output)
    assert (got - expected(clips["one"], params)).abs().max() <= 1.01 / 255
    assert (got - pixels(whole)[:CUT]).abs().max() > 2 / 255, "it makes a difference"


def test_a_group_that_overflows_is_decoded_again(clips, whole, tmp_path):
    asked = []

    class Overflows(Engine):
        wide = False

        def decode(self, latents, frames, setting):
            pixels = super().decode(latents, frames, setting).clone()
            asked.append(self.wide)
            if len(asked) == 2:
                pixels[..., 5] = torch.nan
            return pixels

        @contextmanager
        def wider(self):
            self.wide = True
            yield
            self.wide = False

        def in_wider(self):
            return self.wider()

    params = replace(PARAMS, cuts="0")
    report = LongVideo(clips["one"], tmp_path, Overflows(params), params, LOSSLESS).run()
    assert torch.equal(pixels(report.output), pixels(whole)[:CUT])
    assert asked[:3] == [False, False, True] and not any(asked[3:])


def test_no_detail_is_the_bicubic_enlargement(clips, whole, tmp_path):
    got = pixels(run(clips["one"], tmp_path, replace(PARAMS, cuts="0", detail=0.0)).output)
    enlarged = bicubic(pixels(clips["one"]).transpose(0, 1)[None])[0].transpose(0, 1).clamp(-1, 1)
    assert (got - enlarged).abs().max() <= 1.01 / 255
    assert (got - pixels(whole)[:CUT]).abs().max() > 2 / 255, "it makes a difference"


@pytest.mark.parametrize("name", ["one", "two"])
def test_scenes_are_what_they_are_alone(clips, whole, tmp_path, name):
    alone = run(clips[name], tmp_path, LongVideoParams(**{**vars(PARAMS), "cuts": "0"}))
    part = slice(0, CUT) if name == "one" else slice(CUT, None)
    assert torch.equal(pixels(alone.output), pixels(whole)[part])


def test_times_are_the_sources(clips, whole):
    assert frame_times(whole) == frame_times(clips["both"])


def test_a_span_is_what_its_frames_are_alone(clips, whole, tmp_path):
    """The second scene, cut out by time: frames, times and cuts count from its first frame."""
    report = run(clips["both"], tmp_path, replace(PARAMS, cuts="0"), span=Span(CUT / 10, 0))
    alone = run(clips["two"], tmp_path / "alone", replace(PARAMS, cuts="0"))
    assert report.frames == FRAMES - CUT and report.scenes == 1
    assert torch.equal(pixels(report.output), pixels(alone.output))
    assert frame_times(Path(report.output)) == frame_times(Path(alone.output))
    with pytest.raises(InputError, match="no frame"):
        run(clips["both"], tmp_path, span=Span(60.0))


@pytest.mark.parametrize(
    ("start", "duration", "wanted"),
    [
        (0, 0, range(0, 5)),
        (0.1, 0, range(1, 5)),
        (0.15, 0.2, range(2, 4)),
        (0, 0.3, range(0, 3)),
        (0.4, 9, range(4, 5)),
    ],
)
def test_a_span_chooses_frames_by_time(start, duration, wanted):
    times = FrameTimes([0, 100, 200, 300, 400], range(5), time_base=Fraction(1, 1000))
    assert frames_of_span(Span(start, duration), times) == wanted


def test_cuts_are_found(clips, whole, tmp_path):
    found = LongVideoParams(**{**vars(PARAMS), "cuts": ""})
    report = run(clips["both"], tmp_path, found)
    assert report.scenes == 2
    assert report.cuts_text() == f"2 scenes, cut at frame {CUT} (0:01.1)"
    assert torch.equal(pixels(report.output), pixels(whole))


def test_the_same_job_again_does_nothing(clips, tmp_path):
    params = replace(PARAMS, cuts="0")
    first = run(clips["one"], tmp_path, params)
    before = Path(first.output).stat().st_mtime_ns

    def never(stage: str, setting: Setting) -> None:
        raise AssertionError(f"{stage} ran again")

    again = run(clips["one"], tmp_path, params, trouble=never)
    assert again.output == first.output and again.frames_before == CUT
    assert Path(again.output).stat().st_mtime_ns == before


def test_other_settings_are_another_job(clips, tmp_path):
    first = run(clips["one"], tmp_path, replace(PARAMS, cuts="0"))
    report = run(clips["one"], tmp_path, replace(PARAMS, cuts="0", seed=4))
    assert report.frames_before == 0
    assert not torch.equal(pixels(report.output), pixels(first.output))


class Stop(Exception):
    """Cancelled, or crashed."""


def test_changed_weights_are_said_and_nothing_is_lost(clips, whole, tmp_path):
    """A new version of a weight file meets a job half done, and later one that is finished."""

    def stop_late(stage: str, setting: Setting) -> None:
        if any(tmp_path.glob("jobs/*/part_000000.mkv")):
            raise Stop

    with pytest.raises(Stop):
        run(clips["both"], tmp_path, trouble=stop_late)
    (old,) = (tmp_path / "jobs").glob("*")
    before = {path.name: path.read_bytes() for path in old.iterdir() if "lock" not in path.name}
    assert "part_000000.mkv" in before

    said: list[str] = []
    other = run(clips["both"], tmp_path, unet="22" * 8, status=said.append)
    assert other.frames_before == 0 and other.frames_made == FRAMES
    (note,) = (n for n in other.notes if "The weights have changed (unet)" in n)
    assert note in said and note in other.to_text()
    assert f"job {old.name[:8]} made 5 of {FRAMES} frames" in note and str(old) in note
    assert {path.name: path.read_bytes() for path in old.iterdir() if path.name in before} == before

    # With the old weights it goes on, and says of the other that its video stays.
    again = run(clips["both"], tmp_path)
    assert again.frames_before == 5
    assert Path(again.output).read_bytes() == whole.read_bytes()
    (note,) = (n for n in again.notes if "The weights have changed" in n)
    assert f"Its video {Path(other.output).name} is kept" in note and Path(other.output).exists()
    # Another wish is no change of weights.
    quick = {"steps": 1, "propagation_steps": "", "seed": 4}
    assert not run(clips["both"], tmp_path, replace(PARAMS, **quick)).notes


@pytest.mark.parametrize("as_on_a_gpu", [False, True])
def test_interrupted_anywhere_it_ends_the_same(clips, whole, tmp_path, monkeypatch, as_on_a_gpu):
    """Stopped before every unit of work in turn, and gone on from there."""
    monkeypatch.setattr(scene, "AHEAD_ON", ("cpu",) if as_on_a_gpu else ())
    batches = []
    if as_on_a_gpu:
        in_batches_of(4, monkeypatch, batches)
    wanted, chance, stops = whole.read_bytes(), random.Random(1), 0
    while True:
        left = chance.randrange(6, 11) if as_on_a_gpu else chance.randrange(12, 24)

        def trouble(stage: str, setting: Setting) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stop(stage)

        try:
            report = run(clips["both"], tmp_path, trouble=trouble)
        except Stop:
            stops += 1
            assert stops < 40, "it gets nowhere"
            continue
        break
    assert stops > 1
    assert Path(report.output).read_bytes() == wanted
    assert set(batches) == ({1, 2, 4} if as_on_a_gpu else set())


def in_batches_of(n: int, monkeypatch, batches: list[int]) -> None:
    """Estimate the flows of ``n`` pairs together, as a GPU does; note the size of each batch."""
    both_ways = estimate.NeighbourFlow.both_ways

    def noted(self, earlier, later, *args):
        batches.append(len(earlier))
        return both_ways(self, earlier, later, *args)

    monkeypatch.setattr(estimate, "_one_by_one", lambda _: False)
    monkeypatch.setattr(estimate, "_MOST_PAIRS", n)
    monkeypatch.setattr(estimate.NeighbourFlow, "both_ways", noted)
    monkeypatch.setattr(Engine, "room", lambda _: 2**40)


def begun(path: Path, state=None, engine=None) -> scene.Scene:
    """A video's only scene, ready to give its frames."""
    source = Source.open(path, PARAMS, None, lambda: None)
    return scene.Scene(
        source, range(len(source.frames)), engine or Engine(), PARAMS, ladders(PARAMS, H, W), state,
        on_step=lambda step: None, timed=lambda *_: nullcontext(),
    )  # fmt: skip


def test_pairs_of_frames_are_batched_alike_after_every_stop(tmp_path, monkeypatch):
    """A GPU's result may depend on the batch, so a run that goes on must have the same ones."""
    frames, batches, seen = 30, [], set()
    path = write(tmp_path / "long.mkv", picture("long", frames))
    in_batches_of(4, monkeypatch, batches)
    with closing(begun(path)) as whole:
        wanted, states = [], []
        for i in range(frames):
            wanted.append(whole.take(i + 1))
            if (state := whole.state()) is not None:
                states.append((i + 1, whole.stream.next_pair, state))
    assert batches == [4] * 7 + [1]
    for first, pair, state in states:
        batches.clear()
        with closing(begun(path, state)) as again:
            for i in range(first, frames):
                assert torch.equal(again.take(i + 1), wanted[i])
        left = frames - 1 - pair // 4 * 4 if pair < frames - 1 else 0
        assert batches == [4] * (left // 4) + [1] * (left % 4)
        seen.add(pair % 4)
    assert len(seen) > 1, "no run stopped inside a batch"


def test_latents_are_gone_when_the_next_are_sampled(tmp_path, monkeypatch):
    path, made, alive = write(tmp_path / "long.mkv", picture("long", 30)), [], []
    advance = scene.Scene._advance

    def watched(self, count):
        alive.extend(latents() is not None for latents in made)
        latents = advance(self, count)
        made.append(weakref.ref(latents))
        return latents

    monkeypatch.setattr(scene.Scene, "_advance", watched)
    with closing(begun(path)) as upscaled:
        for i in range(30):
            upscaled.take(min(i // 8 * 8 + 8, 30))
    assert len(made) > 2 and not any(alive)


def test_frames_that_are_skipped_do_not_pile_up(tmp_path, monkeypatch):
    path, held = write(tmp_path / "long.mkv", picture("long", 60)), []
    predict = scene.Scene._predict

    def watched(self, *words):
        held.append(len(self.window))
        return predict(self, *words)

    monkeypatch.setattr(scene.Scene, "_predict", watched)
    with closing(begun(path)) as whole:
        wanted = [whole.take(i + 1) for i in range(60)][54:]
    most = max(held)
    held.clear()
    with closing(begun(path)) as again:
        again.skip(54)
        assert again.next == 54 and max(held) <= most
        assert all(torch.equal(again.take(54 + i + 1), wanted[i]) for i in range(6))


@pytest.mark.parametrize("ahead", [False, True])
def test_a_group_is_decoded_while_the_one_before_is_used(clips, monkeypatch, ahead):
    monkeypatch.setattr(scene, "AHEAD_ON", ("cpu",) if ahead else ())
    decoded, frames = [], range(CUT)
    engine = Engine(trouble=lambda stage, _: decoded.append(1) if stage == "decode" else None)
    with closing(begun(clips["one"], engine=engine)) as made:
        counts = []
        for _ in frames:
            made.take(len(frames))
            counts.append(len(decoded))
    group = PARAMS.frames_per_group
    groups = -(-len(frames) // group)
    assert counts == [min(i // group + 1 + ahead, groups) for i in frames]


def test_cancelled_between_frames_it_keeps_what_is_finished(clips, whole, tmp_path):
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 100:
            raise Stop

    with pytest.raises(Stop):
        run(clips["both"], tmp_path, check_cancelled=check)
    report = run(clips["both"], tmp_path)
    assert Path(report.output).read_bytes() == whole.read_bytes()


def interrupted(clips, folder: Path, part: int) -> Path:
    """A job stopped in the middle of a part; its folder."""
    status: list[str] = []

    def trouble(stage: str, setting: Setting) -> None:
        if status and status[-1].startswith(f"part {part + 1} ") and stage == "decode":
            raise Stop

    with pytest.raises(Stop):
        run(clips["both"], folder, trouble=trouble, status=status.append)
    (job,) = (path for path in (folder / "jobs").iterdir() if path.is_dir())
    return job


@pytest.mark.parametrize("damage", [b"", b"damage", None])
def test_a_damaged_part_is_made_anew(clips, whole, tmp_path, damage):
    job = interrupted(clips, tmp_path, 3)
    parts = sorted(job.glob("part_*.mkv"))
    assert len(parts) == 3
    if damage is None:
        parts[0].unlink()
    else:
        parts[1].write_bytes(damage)
    report = run(clips["both"], tmp_path)
    assert report.frames_before == CUT - 5
    assert Path(report.output).read_bytes() == whole.read_bytes()


def test_a_damaged_state_only_costs_time(clips, whole, tmp_path):
    job = interrupted(clips, tmp_path, 1)
    states = [p for p in job.iterdir() if p.suffix not in (".mkv", ".json", ".bak", ".lock")]
    states = [p for p in states if p.is_file() and "state" in p.name]
    assert states
    for path in states:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    report = run(clips["both"], tmp_path)
    assert Path(report.output).read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("stage", ["sample", "flow", "decode"])
def test_memory_running_out_steps_down(tmp_path, stage):
    large = det("large", (1, 3, 2, 30)).mul(0.3).add(0.5)
    large = torch.nn.functional.interpolate(large, (16, 264), mode="bicubic")[0].clamp(0, 1)
    frames = (large.permute(1, 2, 0)[None].expand(3, -1, -1, -1) * 255).byte()
    path = tmp_path / "large.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 264, 16, "bgr0"
        for frame in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.numpy()), "rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    params = LongVideoParams(**{**vars(PARAMS), "cuts": "0", "steps": 1})
    settings = []

    def trouble(at: str, setting: Setting) -> None:
        if at == stage:
            settings.append(setting)
            if len(settings) <= 2 and setting == settings[0]:
                raise torch.OutOfMemoryError("out of memory")

    report = run(path, tmp_path, params, trouble=trouble)
    assert report.frames == 3 and len(report.notes) == 1
    assert "Memory ran out" in report.notes[0]
    assert len(set(settings)) == 2
    assert pixels(report.output).shape == (3, 3, 64, 1056)


def test_memory_too_small_for_anything_is_said(clips, tmp_path):
    def trouble(stage: str, setting: Setting) -> None:
        if stage == "decode":
            raise MemoryError

    with pytest.raises(OutOfMemoryError, match="decoding"):
        run(clips["both"], tmp_path, trouble=trouble)


def test_an_input_replaced_during_the_run_is_noticed(clips, tmp_path):
    path = tmp_path / "input.mkv"
    path.write_bytes(clips["both"].read_bytes())
    replaced = False

    def trouble(stage: str, setting: Setting) -> None:
        nonlocal replaced
        if stage == "decode" and not replaced:
            path.write_bytes(clips["both"].read_bytes() + b"more")
            replaced = True

    with pytest.raises(InputChangedError):
        run(path, tmp_path, trouble=trouble)


def test_what_it_will_take_is_told_early(clips, tmp_path):
    told, parts = [], []
    run(clips["both"], tmp_path, status=told.append)
    parts = [i for i, text in enumerate(told) if text.startswith("part ")]
    early = [i for i, text in enumerate(told) if "Not measured yet, only guessed: " in text]
    whole = [i for i, text in enumerate(told) if text.startswith(f"Estimate for all {FRAMES} ")]
    assert len(early) == 1 and len(whole) == 2 and set(early) <= set(whole)
    # Before the first part is finished.
    assert max(whole) < parts[1]
    assert any("disk space needed" in text for text in told[: parts[0] + 1])
    assert f"2 scenes, cut at frame {CUT} (0:01.1)" in told


def told_by(clip: Path, folder: Path) -> tuple[list[int], list[str]]:
    """What a run says of its progress, and of its stages."""
    done, stages = [], []
    run(clip, folder, progress=lambda *at: done.append(at), stage=stages.append)
    assert {all_ for _, all_ in done} == {1000}
    return [at for at, _ in done], stages


def test_progress_goes_on_through_all_stages_and_ends_with_the_work(clips, tmp_path):
    done, stages = told_by(clips["both"], tmp_path)
    assert done == sorted(done)
    assert done[0] == 1 and done[-1] == 1000 and done.count(1000) == 1
    assert len(set(done)) > 20, "by pieces of all stages"
    names = {stage.partition(":")[0] for stage in stages}
    assert names == {"Sampling", "Following the motion", "Decoding", ""}
    assert stages[-1] == "", "nothing is under way any more"
    assert any(stage.endswith(" left") for stage in stages)


def test_progress_of_a_resumed_run_begins_where_it_stopped(clips, tmp_path):
    interrupted(clips, tmp_path, 3)
    done, _ = told_by(clips["both"], tmp_path)
    assert done == sorted(done) and done[-1] == 1000
    assert 400 < done[1] < 800, "of 21 frames more than half are there"
    assert told_by(clips["both"], tmp_path)[0] == [1, 1000], "finished before"


def test_a_full_disk_is_refused_before_work(clips, tmp_path, monkeypatch):
    import uav_core.files as files

    monkeypatch.setattr(files, "free_bytes", lambda folder: 1000)

    def never(stage: str, setting: Setting) -> None:
        raise AssertionError("work began")

    with pytest.raises(DiskFullError, match="free"):
        run(clips["both"], tmp_path, trouble=never)


def test_a_disk_that_is_full_when_a_state_is_saved_is_named(clips, whole, tmp_path, monkeypatch):
    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as disk, pytest.raises(DiskFullError, match="continues where"):
        disk.setattr("safetensors.torch.save_file", full)
        run(clips["both"], tmp_path)
    report = run(clips["both"], tmp_path)
    assert Path(report.output).read_bytes() == whole.read_bytes()


def both_at_work(clips, folder: Path, first_ends: Exception | None):
    """Two runs of one job at once, each with a scene; what both report, None for one that died."""
    meet = threading.Barrier(2, timeout=60)

    def waiting(error: Exception | None):
        left = 1

        def trouble(stage: str, setting: Setting) -> None:
            nonlocal left
            if left:
                left -= 1
                meet.wait()
                if error is not None:
                    raise error

        return trouble

    def started(trouble):
        try:
            return run(clips["both"], folder, trouble=trouble)
        except Stop:
            return None

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(started, waiting(error)) for error in (first_ends, None)]
        return [run.result() for run in runs]


def test_runs_of_one_job_share_its_scenes(clips, whole, tmp_path):
    first, second = both_at_work(clips, tmp_path, None)
    assert first is not None and second is not None
    assert sorted((first.frames_made, second.frames_made)) == sorted((CUT, FRAMES - CUT))
    assert first.output == second.output
    assert Path(first.output).read_bytes() == whole.read_bytes()
    assert "made by other runs" in first.to_text()


def test_what_a_run_that_died_had_taken_on_is_done_by_another(clips, whole, tmp_path):
    died, other = both_at_work(clips, tmp_path, Stop())
    assert died is None and other is not None and other.frames_made == FRAMES
    assert Path(other.output).read_bytes() == whole.read_bytes()


def test_transparency_that_is_lost_is_told(tmp_path):
    source = write(tmp_path / "see_through.mkv", picture("clear", 3), "bgra")
    told = []
    params = replace(PARAMS, steps=1, propagation_steps="", cuts="0")
    report = run(source, tmp_path / "out", params, status=told.append)
    assert report.frames_made == 3
    note = "Left out: transparency: for short clips, 'Upscale Alpha' keeps it."
    assert note in told and note in report.to_text()


def test_tiles_are_used_when_asked_for(clips, tmp_path):
    seen = set()
    params = LongVideoParams(
        **{**vars(PARAMS), "tile": 16, "tile_overlap": 8, "propagation_steps": "", "steps": 1}
    )
    run(
        clips["one"],
        tmp_path,
        LongVideoParams(**{**vars(params), "cuts": "0"}),
        trouble=lambda stage, setting: seen.add((stage, setting.tile)),
    )
    assert seen == {("sample", 16), ("decode", 16)}


def test_settings_are_plain_and_complete():
    settings = PARAMS.settings()
    assert json.loads(json.dumps(settings)) == settings
    of_the_video = {"size", "resize", "deinterlace"}  # see Source
    assert set(settings) == set(vars(PARAMS)) - of_the_video - {"guided", "self_ensemble", "detail"}
    changes = {"guided": GuidanceRange(0, 0.5), "self_ensemble": True, "detail": 0.5}
    some = replace(PARAMS, **changes).settings()
    there = set(vars(PARAMS)) - of_the_video - {"detail"}
    assert set(some) == {*there, "detail_by_back_projection"}
    assert json.loads(json.dumps(some)) == some
    # Where frames differ from those of earlier versions, jobs begun before are other jobs.
    between = replace(PARAMS, steps=4, propagation_steps="80%-95%").settings()
    assert between["propagation_between_steps"] is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("guidance", 0.5),
        ("noise_level", 351),
        ("overlap", 8),
        ("propagation_steps", "99"),
        ("lr_guidance", 2),
        ("tile", 8),
        ("frames_per_group", 0),
        ("part_length", 0),
        ("cuts", "soon"),
        ("deinterlace", "sometimes"),
        ("detail", 1.6),
    ],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(InputError):
        LongVideoParams(**{name: value})


def with_sound(path: Path, channels: int) -> Path:
    """Three frames and PCM of so many channels."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = W, H, "bgr0"
        layout = usual_layout(channels)
        sound = container.add_stream("pcm_s16le", rate=8000, layout=layout)
        for frame in picture("heard", 3):
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.numpy()), "rgb24")
            container.mux(stream.encode(image))
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 2400 * channels), np.int16), "s16", layout)
        wave.sample_rate, wave.pts = 8000, 0
        container.mux(sound.encode(wave))
        for each in (stream, sound):
            container.mux(each.encode(None))
    return path


def test_what_the_end_would_refuse_is_refused_before_the_first_pass(tmp_path):
    source = with_sound(tmp_path / "nine.mkv", 9)
    params = replace(PARAMS, steps=1, propagation_steps="", cuts="0")
    passes = []

    def trouble(*words):
        passes.append(words)

    with pytest.raises(EncodeError, match=r"cannot be joined.*choose \.mkv"):
        run(source, tmp_path / "out", params, EncodeParams(), trouble)
    assert not passes and not list(tmp_path.rglob("part_*"))
    # Where the container can hold it, it is done.
    report = run(source, tmp_path / "out", params, LOSSLESS)
    with av.open(report.output) as container:
        assert container.streams.audio[0].channels == 9


def test_where_joining_fails_the_same_again_only_joins(clips, tmp_path, monkeypatch):
    params = replace(PARAMS, steps=1, propagation_steps="", cuts="0")
    real, calls = long_run.join, []

    def fails_at_the_end(*words, **named):
        calls.append(words)
        if len(calls) == 2:  # after the rehearsal
            raise EncodeError("The sound is damaged.")
        return real(*words, **named)

    monkeypatch.setattr(long_run, "join", fails_at_the_end)
    with pytest.raises(EncodeError, match=r"sound is damaged.*it then only joins"):
        run(clips["one"], tmp_path, params)
    report = run(clips["one"], tmp_path, params)
    assert report.frames_made == 0 and report.frames_before == CUT
    assert Path(report.output).exists()


def test_stopped_after_joining_the_same_again_ends_under_the_given_name(
    clips, tmp_path, monkeypatch
):
    """The name is free until the job knows the file, so that no file there is the job's own."""
    params = replace(PARAMS, steps=1, propagation_steps="", cuts="0")
    named = {"file_name": "out.mkv", "jobs": tmp_path / "jobs"}

    def stopped(path, *words, **options):
        if Path(path).parent == tmp_path:
            raise Stop
        return hash_file(path, *words, **options)

    with monkeypatch.context() as at_the_end, pytest.raises(Stop):
        at_the_end.setattr(jobs_job, "hash_file", stopped)
        run(clips["one"], tmp_path, params, **named)
    assert [path.name for path in tmp_path.iterdir()] == ["jobs"]
    (tmp_path / "out.mkv").write_bytes(b"mine")
    with pytest.raises(InputError, match="already exists"):
        run(clips["one"], tmp_path, params, **named)
    assert (tmp_path / "out.mkv").read_bytes() == b"mine"
    (tmp_path / "out.mkv").unlink()
    join = long_run.LongVideo._join_into

    def beside_another(self, target, parts, task):
        (tmp_path / "out.mkv").write_bytes(b"made meanwhile")
        return join(self, target, parts, task)

    # What runs left that were killed while they joined goes.
    (job,) = list_jobs(tmp_path / "jobs")
    for ending in (".mkv", ".mkv.0123abcd.tmp"):
        (tmp_path / f".joining_{job.id}{ending}").write_bytes(b"half")

    with monkeypatch.context() as late, pytest.raises(InputError, match="already exists"):
        late.setattr(long_run.LongVideo, "_join_into", beside_another)
        run(clips["one"], tmp_path, params, **named)
    assert (tmp_path / "out.mkv").read_bytes() == b"made meanwhile"
    (tmp_path / "out.mkv").unlink()
    report = run(clips["one"], tmp_path, params, **named)
    assert report.frames_made == 0 and Path(report.output) == tmp_path / "out.mkv"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jobs", "out.mkv"]
