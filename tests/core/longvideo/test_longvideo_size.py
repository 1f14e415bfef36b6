"""Long videos of other sizes than 4x, on real files, with the tiny networks of the golden data."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from test_longvideo import LOSSLESS, Engine, Stop, pixels
from video_files import HEIGHT, WIDTH, write_clip

from uav_core.errors import InputError
from uav_core.frames.output_size import OutputSize, after, before, plan_size, plan_video
from uav_core.jobs import JobInputs, job_id
from uav_core.longvideo import LongVideo, LongVideoParams, scene
from uav_core.video import CODECS, EncodeParams, EncodeParamsError, VideoReader, probe
from uav_core.video.reading.side_data import Orientation

FRAMES = 3
PARAMS = LongVideoParams(
    steps=1,
    guidance=1.0,
    noise_level=60,
    propagation_steps="",
    flow_iterations=2,
    cuts="2",
    part_length=2,
    frames_per_group=2,
)
HALF = replace(PARAMS, size=OutputSize(factor=2.0))
PAD = OutputSize("exact size", width=128, height=128, aspect="pad")


class Recorder(Engine):
    """An engine that keeps what it is given to decode, and what it makes of it."""

    def __init__(self, params: LongVideoParams, **options):
        super().__init__(params, **options)
        self.given: list[torch.Tensor] = []
        self.made: list[torch.Tensor] = []

    def decode(self, latents, frames, setting):
        result = super().decode(latents, frames, setting)
        self.given += frames[0].unbind(1)
        self.made += result[0].unbind(1)
        return result


def run(source: Path, folder: Path, params=HALF, encode=LOSSLESS, trouble=None, **options):
    """The report, and the engine that was at work."""
    engine = Recorder(params, trouble=trouble) if trouble else Recorder(params)
    return LongVideo(source, folder, engine, params, encode, **options).run(), engine


def image(frames: list[torch.Tensor]) -> torch.Tensor:
    """Frames (3, h, w) in [-1, 1] as (t, h, w, 3) in [0, 1]."""
    return torch.stack(frames).movedim(1, -1).add(1).div(2)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", FRAMES)


@pytest.mark.parametrize("resize", ["before", "after"])
@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (OutputSize("short side", short_side=90), (136, 90)),
        (PAD, (128, 128)),
        (OutputSize("exact size", width=128, height=128, aspect="crop"), (128, 128)),
        (OutputSize("exact size", width=128, height=128), (128, 86)),
    ],
)
def test_the_file_has_the_size(clip, tmp_path, size, resize, wanted):
    params = replace(PARAMS, size=size, resize=resize)
    report, engine = run(clip, tmp_path, params, EncodeParams())
    info = probe(report.output)
    assert (info.width, info.height) == wanted == report.size
    given = {tuple(frame.shape[1:]) for frame in engine.given}
    plan = plan_size(HEIGHT, WIDTH, size)
    assert given == {plan.given if resize == "before" else (HEIGHT, WIDTH)}
    text = (
        f"resized before upscaling from {WIDTH}x{HEIGHT} to {plan.given[1]}x{plan.given[0]}"
        if resize == "before"
        else f"resized after upscaling from {4 * WIDTH}x{4 * HEIGHT}"
    )
    assert f"{FRAMES} frames of {wanted[0]}x{wanted[1]}, {text}." in report.to_text()
    assert Path(report.output).name.startswith(f"clip_{wanted[0]}x{wanted[1]}_")


@pytest.mark.parametrize("size", [HALF.size, PAD])
def test_after_is_the_upscaled_frames_resized(clip, tmp_path, size):
    report, engine = run(clip, tmp_path, replace(PARAMS, size=size))
    plan = plan_size(4 * HEIGHT, 4 * WIDTH, size, upscaled=True)
    expected = after(image(engine.made), plan)
    got = image(list(pixels(report.output)))
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 0.505 / 255
    if size is PAD:
        assert got[:, :20].max() == 0 and got[:, -20:].max() == 0


def test_frames_leave_the_device_at_their_finished_size(clip, tmp_path, monkeypatch):
    """A video of 2x need not copy the pixels of 4x from a GPU."""
    copied, to_host = [], scene.to_host

    def spy(frame, page_locked):
        copied.append(frame.shape)
        return to_host(frame, page_locked)

    monkeypatch.setattr(scene, "to_host", spy)
    run(clip, tmp_path)
    assert copied == [(3, 2 * HEIGHT, 2 * WIDTH)] * FRAMES


def test_before_is_the_frames_shrunk(clip, tmp_path):
    params = replace(HALF, resize="before")
    report, engine = run(clip, tmp_path, params)
    source = image(list(VideoReader(clip)))
    expected = before(source, plan_size(HEIGHT, WIDTH, HALF.size))
    assert (image(engine.given) - expected).abs().max() < 1e-6
    got = image(list(pixels(report.output)))
    assert (got - image(engine.made)).abs().max() <= 0.505 / 255


@pytest.mark.parametrize("resize", ["before", "after"])
def test_parts_and_stops_change_nothing(clip, tmp_path, resize):
    params = replace(HALF, resize=resize)
    whole, _ = run(clip, tmp_path / "whole", params)
    longer, _ = run(clip, tmp_path / "longer", replace(params, part_length=40))
    assert torch.equal(pixels(whole.output), pixels(longer.output))
    calls = 0

    def trouble(stage, setting):
        nonlocal calls
        calls += stage == "decode"
        if calls == 2:
            raise Stop

    with pytest.raises(Stop):
        run(clip, tmp_path / "stopped", params, trouble=trouble)
    again, _ = run(clip, tmp_path / "stopped", params)
    assert 0 < again.frames_before < FRAMES
    assert Path(again.output).read_bytes() == Path(whole.output).read_bytes()


def test_another_size_is_another_job(clip, tmp_path):
    outputs = set()
    for params in (PARAMS, HALF, replace(HALF, resize="before"), replace(PARAMS, size=PAD)):
        report, _ = run(clip, tmp_path, params)
        assert report.frames_before == 0
        outputs.add(report.output)
    assert len(outputs) == 4


def test_the_same_size_in_other_words_is_the_same_job(clip, tmp_path):
    first, _ = run(clip, tmp_path)
    for size in (
        OutputSize("short side", short_side=64),
        OutputSize("exact size", width=96, height=64),
    ):
        again, _ = run(clip, tmp_path, replace(PARAMS, size=size))
        assert again.output == first.output and again.frames_before == FRAMES


def test_a_job_of_4x_is_the_one_it_was():
    """Its identity is that of jobs begun before there was a choice of size."""
    inputs = JobInputs({"size": 1}, {"run": LongVideoParams().settings()}, {})
    assert job_id(inputs) == "974340775bd8158768b3b5016b9809f8"


def test_4x_in_other_words_is_the_job_of_4x(clip, tmp_path):
    first, _ = run(clip, tmp_path, PARAMS)
    assert "resized" not in first.to_text() and "_4x_" in first.output
    size = OutputSize("short side", short_side=4 * HEIGHT)
    for resize in ("before", "after"):
        again, _ = run(clip, tmp_path, replace(PARAMS, size=size, resize=resize))
        assert again.output == first.output and again.frames_before == FRAMES


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (OutputSize("short side", short_side=256), "384x256 is 8 times the input size 48x32"),
        (OutputSize("short side", short_side=20), "expected 1 to 4 times, 48x32 to 192x128"),
        (OutputSize("exact size", width=300, height=128, aspect="stretch"), "6.25 times"),
        (OutputSize("exact size", width=100, height=20), "expected 1 to 4"),
    ],
)
@pytest.mark.parametrize("resize", ["before", "after"])
def test_sizes_out_of_reach_are_refused_before_work(clip, tmp_path, size, says, resize):
    params = replace(PARAMS, size=size, resize=resize)
    with pytest.raises(InputError, match=says):
        run(clip, tmp_path / "out", params)
    assert not (tmp_path / "out").exists()


def test_what_the_codec_or_the_model_cannot_hold_is_refused(clip, tmp_path):
    assert CODECS["h265"].least == 64
    params = replace(PARAMS, size=OutputSize("short side", short_side=40))
    with pytest.raises(EncodeParamsError, match="60x40 in h265"):
        run(clip, tmp_path / "out", params, EncodeParams("h265"))
    slit = OutputSize("exact size", width=16, height=128, aspect="crop")
    assert plan_video(64, 64, slit, "after").size == (128, 16)
    with pytest.raises(InputError, match="at least 16 px"):
        plan_video(64, 64, slit, "before")
    with pytest.raises(InputError, match="'never'"):
        LongVideoParams(resize="never")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("resize", ["before", "after"])
def test_width_is_what_the_viewer_sees(tmp_path, resize):
    """Of a clip that players turn by 90 degrees."""
    source = write_clip(tmp_path / "turned.mp4", 2, rotation=90)
    for number, size in enumerate(
        (
            OutputSize("short side", short_side=64),
            OutputSize("exact size", width=64, height=96, aspect="stretch"),
        )
    ):
        params = replace(PARAMS, cuts="0", size=size, resize=resize)
        report, engine = run(source, tmp_path / str(number), params)
        info = probe(report.output)
        assert (info.width, info.height) == (64, 96) and info.orientation == Orientation()
        (given,) = {tuple(frame.shape[1:]) for frame in engine.given}
        assert given == ((24, 16) if resize == "before" else (48, 32))
        # The red quarter lies where a player shows it: turned anticlockwise, at the lower left.
        frame = engine.given[0]
        red = (frame[0] - frame[1] > 0.6).nonzero().float().mean(0) / torch.tensor(given)
        assert red.tolist() == pytest.approx([0.75, 0.25], abs=0.05)


@pytest.mark.parametrize("resize", ["before", "after"])
def test_pixels_that_are_not_square(tmp_path, resize):
    """48x32 with pixels 4:3, which is shown as 64x32."""
    source = write_clip(tmp_path / "wide.mp4", 2, aspect=Fraction(4, 3))
    wanted = {
        OutputSize("short side", short_side=64): ((96, 64), Fraction(4, 3)),
        OutputSize("exact size", width=128, height=128): ((128, 64), Fraction(1)),
        OutputSize("exact size", width=128, height=128, aspect="pad"): ((128, 128), Fraction(1)),
    }
    for number, (size, (sides, aspect)) in enumerate(wanted.items()):
        params = replace(PARAMS, cuts="0", size=size, resize=resize)
        info = probe(run(source, tmp_path / str(number), params, EncodeParams())[0].output)
        assert ((info.width, info.height), info.sample_aspect) == (sides, aspect)


def test_disk_and_estimate_are_of_the_size(clip, tmp_path):
    told: dict[str, list[str]] = {}
    for name, params in {
        "4x": PARAMS,
        "after": HALF,
        "before": replace(HALF, resize="before"),
    }.items():
        told[name] = []
        run(clip, tmp_path / name, params, status=told[name].append)
    # The states are equal in the first two; what is encoded is a quarter.
    disk = {
        name: next(float(t.split()[1]) for t in texts if "disk space needed" in t)
        for name, texts in told.items()
    }
    assert disk["4x"] > disk["after"] > disk["before"]
    frames = {
        name: next(t for t in texts if t.startswith("Estimate"))
        .split("frames of ")[1]
        .split(" ")[0]
        for name, texts in told.items()
    }
    assert [frames[name].rstrip(":") for name in told] == ["48x32", "48x32", "24x16"]
