"""Numbered pictures of 16 bits and of floats into a video and back."""

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from made_frames import H, W, encoded, write_frames
from PIL import Image

from uav_core import InputError
from uav_core.video import EncodeParams, VideoReader, encode_part, frame_times, join, probe
from uav_core.video.color import floats, from_floats
from uav_core.video.sequences import (
    BRIGHTEST,
    Frames,
    from_curve,
    gather,
    numbers_of,
    scatter,
    size_of,
    to_curve,
)


def read(path):
    with av.open(str(path)) as container:
        picture = next(container.decode(video=0))
        if path.suffix == ".exr":
            return floats(picture).numpy()
        return picture.to_ndarray(format="rgb48le")


@pytest.mark.parametrize("ending", [".png", ".exr"])
def test_what_goes_in_comes_out(tmp_path, ending):
    frames = Frames.there(write_frames(tmp_path / "in", ending=ending))
    assert frames is not None and frames.numbers == range(7, 10)
    video = tmp_path / "video.mkv"
    gather(frames, video, Fraction(24))
    info = probe(video)
    assert (info.width, info.height, info.rate, info.bit_depth) == (W, H, 24, 16)
    made = Frames.named(tmp_path / f"out/a%05d{ending}")
    assert made is not None
    (tmp_path / "out").mkdir()
    assert scatter(video, made, first=7) == 3
    for i in frames.numbers:
        before, after = read(frames.path(i)), read(tmp_path / f"out/a{i:05d}{ending}")
        if ending == ".png":
            assert np.array_equal(before, after)
        else:
            assert before.max() > 20
            bright = before > 0.0078125
            assert np.array_equal(before[bright], after[bright])
            assert np.allclose(before[~bright], after[~bright], rtol=0, atol=4e-6)


def test_the_curve_is_that_of_acescct():
    light = torch.tensor([0.0, 0.0078125, 0.18, 1.0, 222.86])
    assert to_curve(light).tolist() == pytest.approx(
        [0.0729, 0.1553, 0.4136, 0.5548, 1.0], abs=1e-4
    )
    assert torch.allclose(from_curve(to_curve(light)), light, rtol=1e-4, atol=1e-6)
    assert from_curve(to_curve(torch.tensor([-1.0, 1e9]))).tolist() == pytest.approx(
        [-0.0069, BRIGHTEST], abs=1e-2
    )


def test_a_folder_of_frames_is_one_if_nothing_else_lies_there(tmp_path):
    folder = write_frames(tmp_path / "in")
    (folder / ".hidden").touch()
    pattern = Frames.there(folder / "shot.%04d.png")
    assert Frames.there(folder) == pattern and pattern is not None
    assert pattern.master == folder / "shot.mkv"
    (folder / "notes.txt").touch()
    assert Frames.there(folder) is None
    assert Frames.there(folder / "shot.%04d.png") == pattern
    assert Frames.there(folder / "notes.txt") is None
    with pytest.raises(InputError, match="matches no file"):
        Frames.there(folder / "other%d.png")
    pattern.path(8).unlink()
    with pytest.raises(InputError, match=r"shot\.0008\.png' is missing between 7 and 9"):
        Frames.there(folder / "shot.%04d.png")


def test_numbers_without_zeros_before_them(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in (9, 10, 11):
        (folder / f"{i}.png").touch()
    frames = Frames.there(folder)
    assert frames is not None and [frames.path(i).name for i in frames.numbers] == [
        "9.png",
        "10.png",
        "11.png",
    ]


def test_pictures_that_do_not_go_together_are_named(tmp_path):
    folder = write_frames(tmp_path / "in", ending=".exr")
    bad = torch.full((3, H, W), float("nan"))
    last = folder / "shot.0009.exr"
    for picture, says in ((bad, "0009.exr' has NaN"), (bad[:, :, 1:], "is 39x24: expected 40x24")):
        last.write_bytes(encoded(from_floats(picture), "exr", {}))
        frames = Frames.there(folder)
        assert frames is not None
        with pytest.raises(InputError, match=says):
            gather(frames, tmp_path / "video.mkv", Fraction(24))
    assert not (tmp_path / "video.mkv").exists()


def test_every_frame_of_the_video_is_a_picture(tmp_path):
    frames = Frames.there(write_frames(tmp_path / "in"))
    assert frames is not None
    gather(frames, tmp_path / "video.mkv", Fraction(24))
    assert len(list(VideoReader(tmp_path / "video.mkv"))) == 3


@pytest.mark.parametrize("rate", ["25", "24000/1001", "30", "60"])
@pytest.mark.parametrize("ending", [".mov", ".mp4"])
def test_the_times_of_a_video_of_them_are_exact(rate, ending, tmp_path):
    frames = Frames.there(write_frames(tmp_path / "in", count=4))
    assert frames is not None
    source, rate = tmp_path / "video.nut", Fraction(rate)
    gather(frames, source, rate)
    params = EncodeParams(container=ending).for_source(probe(source))
    part = encode_part(tmp_path / "part.mkv", VideoReader(source), params, (W, H))
    for video in (source, tmp_path / f"joined{ending}"):
        if video != source:
            join([part], video, frame_times(source), source, params)
        times = frame_times(video)
        assert [time * times.time_base for time in times] == [i / rate for i in range(4)]
        assert probe(video).rate == rate


def test_a_name_may_have_a_digit_before_the_number(tmp_path):
    folder = write_frames(tmp_path / "in")
    for i in (7, 8, 9):
        (folder / f"shot.{i:04d}.png").rename(folder / f"render1{i:04d}.png")
    frames = Frames.there(folder / "render1%04d.png")
    assert frames is not None and frames.numbers == range(7, 10)
    assert frames.path(8) == folder / "render10008.png"


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no colon in names")
def test_a_relative_path_may_have_a_colon(tmp_path, monkeypatch):
    write_frames(tmp_path / "a:b")
    monkeypatch.chdir(tmp_path)
    frames = Frames.there(Path("a:b/shot.%04d.png"))
    assert frames is not None and size_of(frames) == (W, H)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("I;16", 1), ("RGB", 3)])
def test_gray_pictures_have_one_channel(tmp_path, mode, channels):
    for i in (1, 2):
        Image.new(mode, (24, 16)).save(tmp_path / f"m.{i:04d}.png")
    frames = Frames.there(tmp_path)
    assert frames is not None
    assert [len(values) for values in numbers_of(frames)] == [channels] * 2
