import sys
from collections.abc import Iterator

import av
import pytest
import torch
import torch.nn.functional as F
from generated import det

from uav_core import InputError
from uav_core.errors import MissingPackageError
from uav_core.video.scenes import SceneParams, chosen_method, find_cuts, parse_cuts, plan_scenes

H, W = 48, 64
INSTALLED = chosen_method(SceneParams()) == "pyscenedetect"
METHODS = [
    "built-in",
    pytest.param(
        "pyscenedetect",
        marks=pytest.mark.skipif(not INSTALLED, reason="PySceneDetect is not installed"),
    ),
]


def texture(name, frames, speed=1, fine=4) -> list[torch.Tensor]:
    """A coloured texture that moves ``speed`` pixels a frame to the left (right if negative)."""
    width = W + abs(speed) * frames
    coarse = det(f"scene/{name}", (1, 3, H // fine, width // fine + 1))
    tint = det(f"scene/{name}/tint", (1, 3, 1, 1)) * 0.4
    wide = F.interpolate(coarse, (H, width), mode="bicubic")
    wide = (wide * 0.35 + tint).clamp(-1, 1)[0]
    clip = [wide[:, :, i * abs(speed) : i * abs(speed) + W] for i in range(frames)]
    return clip if speed >= 0 else clip[::-1]


def cuts_of(frames, method, **options):
    return find_cuts(iter(frames), SceneParams(method, **options))


@pytest.mark.parametrize("method", METHODS)
def test_hard_cuts_are_found_exactly(method):
    lengths = [20, 9, 31, 12, 15]
    frames, expected = [], []
    for i, length in enumerate(lengths):
        expected.append(len(frames))
        frames += texture(f"hard{i}", length, speed=i % 3 - 1)
    assert cuts_of(frames, method) == tuple(expected[1:])
    assert cuts_of(frames, method, shortest=10) == (20, 60, 72)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("speed", [0, 3, 16])
def test_one_moving_scene_has_no_cut(method, speed):
    assert cuts_of(texture("pan", 60, speed), method) == ()


@pytest.mark.parametrize("method", METHODS)
def test_a_pan_that_starts_and_stops_is_no_cut(method):
    wide = texture("start", 1, 600)[0]
    wide = F.interpolate(det("scene/wide", (1, 3, 6, 90)), (H, W + 656), mode="bicubic")[0]
    at = [0] * 15 + [20 * i for i in range(1, 31)] + [600] * 15
    frames = [(wide[:, :, x : x + W] * 0.35).clamp(-1, 1) for x in at]
    assert cuts_of(frames, method) == ()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("frames_of_fade", [12, 25])
def test_a_fade_of_brightness_is_no_cut(method, frames_of_fade):
    still = texture("fade", 1)[0]
    levels = torch.cat(
        (torch.ones(15), torch.linspace(1, 0, frames_of_fade), torch.linspace(0, 1, 15))
    )
    assert cuts_of([(still + 1) * level - 1 for level in levels], method) == ()


@pytest.mark.parametrize("method", METHODS)
def test_noise_is_no_cut(method):
    still = texture("noise", 1)[0]
    frames = [(still + 0.3 * det(f"noise{i}", still.shape)).clamp(-1, 1) for i in range(40)]
    assert cuts_of(frames, method) == ()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(method, length):
    frames = texture("flash", 50)
    for i in range(20, 20 + length):
        frames[i] = torch.ones_like(frames[i])
    frames[35] = -torch.ones_like(frames[35])
    assert cuts_of(frames, method) == ()


@pytest.mark.parametrize("method", METHODS)
def test_a_cut_in_motion_and_noise_is_found(method):
    frames = texture("left", 30, 2, fine=12) + texture("right", 30, -1, fine=12)
    frames = [(x + 0.05 * det(f"grain{i}", x.shape)).clamp(-1, 1) for i, x in enumerate(frames)]
    assert cuts_of(frames, method) == (30,)


def test_a_cut_from_a_fast_pan_to_a_slow_one_is_found():
    frames = texture("left", 30, 4) + texture("right", 30, 2)
    assert cuts_of(frames, "built-in") == (30,)


def test_cuts_near_the_ends_are_passed_over():
    frames = texture("a", 4) + texture("b", 30) + texture("c", 5)
    assert cuts_of(frames, "built-in") == ()
    assert cuts_of(frames, "built-in", shortest=1) == (4, 34)
    for length in (1, 2, 3):
        frames = texture("a", length) + texture("b", 20) + texture("c", length)
        assert cuts_of(frames, "built-in", shortest=1) == (length, length + 20)


def test_a_frame_is_let_go_of():
    # A generator that would notice if its frames were kept: each is overwritten by the next.
    held = torch.empty(3, H, W)
    source = texture("x", 20) + texture("y", 20)

    def reused() -> Iterator[torch.Tensor]:
        for frame in source:
            yield held.copy_(frame)

    assert find_cuts(reused(), SceneParams("built-in")) == (20,)


@pytest.mark.parametrize("method", METHODS)
def test_a_real_clip(method, sample_clip):
    with av.open(str(sample_clip)) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    clip = [torch.from_numpy(p).permute(2, 0, 1) / 127.5 - 1 for p in pictures]
    assert cuts_of(clip, method) == ()
    mirrored = [1 - x.flip(2) for x in clip]
    other = [x - 1 for x in mirrored]
    assert cuts_of(clip + other, method) == (len(clip),)


@pytest.mark.parametrize("count", range(8))
def test_few_frames(count):
    assert cuts_of(texture("few", count), "built-in", shortest=1) == ()


def test_off_takes_no_frame():
    def never() -> Iterator[torch.Tensor]:
        raise AssertionError
        yield

    assert find_cuts(never(), SceneParams("off")) == ()


def test_without_pyscenedetect(monkeypatch):
    monkeypatch.setitem(sys.modules, "scenedetect", None)
    monkeypatch.setitem(sys.modules, "scenedetect.detectors", None)
    assert chosen_method(SceneParams("auto")) == "built-in"
    assert cuts_of(texture("p", 20) + texture("q", 20), "auto") == (20,)
    with pytest.raises(MissingPackageError, match="scenedetect"):
        cuts_of([], "pyscenedetect")


def test_frames_of_another_shape_are_named():
    with pytest.raises(InputError, match="Frame 1"):
        cuts_of([torch.zeros(3, 8, 8), torch.zeros(3, 8, 9)], "built-in")
    with pytest.raises(InputError, match=r"\(3, h, w\)"):
        cuts_of([torch.zeros(8, 8, 3)], "built-in")


@pytest.mark.parametrize("options", [{"method": "best"}, {"threshold": 1.0}, {"shortest": 0}])
def test_impossible_params_are_named(options):
    with pytest.raises(InputError, match="expected"):
        SceneParams(**options)


def test_scenes():
    assert plan_scenes(10) == (range(10),)
    assert plan_scenes(10, (7, 3)) == (range(3), range(3, 7), range(7, 10))
    assert plan_scenes(10, (3, 3, 0)) == (range(3), range(3, 10))
    for frames, cuts in ((0, ()), (10, (10,)), (10, (-1,))):
        with pytest.raises(InputError, match="frames"):
            plan_scenes(frames, cuts)


SECONDS = [1.0 + i / 25 for i in range(500)]  # a video that begins at one second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("340", (340,)),
        ("0:12.5, 340", (312, 340)),
        ("340,0:12.5,,340", (312, 340)),
        ("12.5s", (312,)),
        ("12 S", (300,)),
        ("0:00:12.5", (312,)),
        ("0:00, 0, 5", (5,)),
        ("0:00.05", (1,)),
        ("0:19.96", (499,)),
        ("0:00.079", (2,)),
    ],
)
def test_cuts_by_hand(text, expected):
    assert parse_cuts(text, SECONDS) == expected
    assert parse_cuts(text) == ()


def test_times_of_a_variable_rate():
    assert parse_cuts("0:01, 0:02.4, 0:02.6", [0.0, 0.9, 1.2, 2.0, 3.0]) == (1, 3, 4)


@pytest.mark.parametrize(
    "text", ["x", "12.5", "-3", "1:2:3:4", "0:75", "1:60:00", "3;4", "5 6", "0:", "s", "1e3"]
)
def test_cuts_not_understood(text):
    with pytest.raises(InputError, match="not understood"):
        parse_cuts(text)


@pytest.mark.parametrize("text", ["500", "3, 9999", "0:20", "1:00:00"])
def test_cuts_outside_the_video(text):
    parse_cuts(text)
    with pytest.raises(InputError, match=r"500 frames|after the last"):
        parse_cuts(text, SECONDS)
