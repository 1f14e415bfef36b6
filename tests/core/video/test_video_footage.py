"""Old footage: fields and telecined film are found, whatever the file says, and made whole."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch
from made_fields import H, W, frames, moment, noisy, of_fields, telecined
from video_files import RATE, seconds_shown, sound_of, write_clip

from uav_core.errors import InputError
from uav_core.video import EncodeParams, Footage, contents, encode_part, join
from uav_core.video.reading import footage as looking
from uav_core.video.reading.deinterlace import Mending
from uav_core.video.reading.footage import Finding, find_fields

COUNT = 62
CAPTURE = {"codec": "ffv1"}  # of every picture by itself, and without marks
CLEAN, DV, VHS = {"much": 0}, {"much": 3}, {"much": 8, "jitter": 1}


def write(path, pictures, mark="", **options):
    if mark:
        x264 = {"x264-params": f"qp=0:{mark}=1:keyint=12:bframes=2"}
        options = {"codec": "libx264", "options": x264, **options}
    given = {**CAPTURE, "size": (W, H), "pictures": frames(pictures, mark), **options}
    return write_clip(path, len(pictures), **given)


def read(footage, start=0, stop=None) -> torch.Tensor:
    """Brightness (frames, h, w) as it was written, in studio range."""
    with footage.reader(range(start, stop or len(footage.times))) as reader:
        return torch.stack([frame.mean(0).add(1).mul(109.5).add(16) for frame in reader])


def truth(count, first=0) -> torch.Tensor:
    return torch.from_numpy(np.stack([moment(first + i) for i in range(count)]))


def error(made, meant) -> float:
    """Mean difference, without the ends, which have no neighbours to be made whole from."""
    return (made - meant)[2:-2].abs().mean().item()


def combing(pictures) -> float:
    """How much lines differ from both of their neighbours alike, as combed ones do."""
    up, down = (pictures[..., 1:-1, :] - pictures[..., a:b, :] for a, b in ((0, -2), (2, None)))
    return (up * down).clamp_min(0).sqrt().mean().item()


@pytest.mark.parametrize("kind", ["fields", "film"])
@pytest.mark.parametrize("order", ["top", "bottom"])
@pytest.mark.parametrize("tape", [CLEAN, DV, VHS], ids=["clean", "dv", "vhs"])
def test_what_the_file_does_not_say_is_found(tmp_path, kind, order, tape):
    make = of_fields if kind == "fields" else telecined
    path = write(tmp_path / "tape.mkv", noisy(make(COUNT, order == "top"), **tape))
    footage = Footage.open(path)
    assert (footage.finding.kind, footage.finding.order) == (kind, order)
    made, left = read(footage), read(Footage.open(path, "never"))
    assert len(made) == (COUNT if kind == "fields" else COUNT // 5 * 4 + COUNT % 5)
    # What the noise alone would leave.
    plain = noisy([moment(i) for i in range(COUNT)], **tape)
    noise = torch.from_numpy(np.stack(plain)) - truth(COUNT)
    floor, comb = noise.abs().mean().item(), combing(truth(COUNT) + noise)
    if kind == "film":
        assert error(made, truth(len(made))) < 1.05 * floor + 0.6
        assert combing(made) < 1.05 * comb + 0.1
    else:
        assert error(made, truth(COUNT)) < 0.8 * error(left, truth(COUNT))
        assert combing(made) < comb + 0.2 * (combing(left) - comb)
    (note,) = footage.notes()
    assert ("interlaced" if kind == "fields" else "telecined film") in note


@pytest.mark.parametrize("tape", [CLEAN, DV, VHS, {"much": 14}], ids=["clean", "dv", "vhs", "worn"])
def test_whole_pictures_are_left_alone_however_they_move(tmp_path, tape):
    def shaken(i):
        return np.roll(moment(i), 5 * (-1) ** i, axis=0)  # up and down, as a held camera

    for made in (moment, shaken, lambda i: moment(2.5 * i)):
        path = write(tmp_path / "film.mkv", noisy([made(i) for i in range(COUNT)], **tape))
        footage = Footage.open(path)
        assert footage.mending == Mending() and footage.notes() == []


def test_a_wrong_order_is_put_right(tmp_path):
    """The mark says the lower lines first; the upper ones were."""
    woven = of_fields(COUNT, True)
    wrong = write(tmp_path / "wrong.mp4", woven, "bff")
    right = write(tmp_path / "right.mp4", woven, "tff")
    footage, as_marked = Footage.open(wrong), Footage.open(wrong, "bottom")
    assert footage.mending == Mending("all", "top")
    assert "marks are wrong" in footage.notes()[0]
    assert Footage.open(right).mending == Mending("marked")
    made = read(footage)
    torch.testing.assert_close(made, read(Footage.open(right)), atol=1e-4, rtol=0)
    # In the wrong order the moments kept are half a picture late, and what is made anew is made
    # of the wrong neighbours.
    assert error(made, truth(COUNT)) < 0.5 * error(read(as_marked), truth(COUNT))


def test_whole_pictures_that_are_marked_as_fields_keep_their_lines(tmp_path):
    path = write(tmp_path / "psf.mp4", [moment(i) for i in range(COUNT)], "tff")
    footage = Footage.open(path)
    assert footage.info.interlaced and footage.mending == Mending()
    assert footage.notes() == [
        "The video is marked as interlaced, but its frames are progressive: not changed."
    ]
    assert error(read(footage), truth(COUNT)) < 1


def test_where_nothing_moves_the_mark_is_believed(tmp_path):
    still = [moment(0)] * 20
    assert Footage.open(write(tmp_path / "a.mp4", still, "tff")).mending == Mending("marked")
    assert Footage.open(write(tmp_path / "a.mkv", still)).mending == Mending()


@pytest.mark.parametrize("first", range(5))
def test_film_begins_anywhere_in_its_rhythm(tmp_path, first):
    path = write(tmp_path / "film.mkv", telecined(COUNT, True, first=first))
    made = read(Footage.open(path))
    whole = truth(COUNT)
    which = [int((whole - picture).abs().mean((1, 2)).argmin()) for picture in made]
    best = [(picture - whole[i]).abs().mean() for i, picture in zip(which, made, strict=True)]
    # But for the ends every picture is one of the film, and no two are the same.
    assert max(best[1:-2]) < 1
    steps = np.diff(which[1:-2])
    assert steps.tolist() == [1] * len(steps)


def test_a_range_of_film_gives_the_frames_of_the_whole(tmp_path):
    pictures = noisy(telecined(58, False), 3)
    path = write(tmp_path / "film.mp4", pictures, codec="libx264", options={"g": "12", "crf": "12"})
    footage = Footage.open(path)
    whole = read(footage)
    assert len(whole) == 47
    for start, stop in ((0, 1), (1, 3), (3, 5), (4, 12), (9, 10), (17, 30), (40, 47), (46, 47)):
        assert torch.equal(read(footage, start, stop), whole[start:stop])


def test_film_is_shown_evenly_and_with_its_sound(tmp_path):
    """At four fifths of the rate, each picture when its first field was shown."""
    second = Fraction(1001, 30000)
    times = [i * 1001 for i in range(COUNT)]
    path = write(
        tmp_path / "film.mkv",
        telecined(COUNT, True),
        codec="libx264",
        options={"crf": "5"},
        times=times,
        base=Fraction(1, 30000),
        audio=(("pcm_s16le", 0.0, 2.0),),
    )
    footage = Footage.open(path)
    params = EncodeParams(container=".mp4").for_source(footage.info)
    part = encode_part(
        tmp_path / "part.mkv", footage.reader(range(len(footage.times))), params, (W, H)
    )
    target = tmp_path / "out.mp4"
    join([part], target, footage.times, path, params)
    shown = seconds_shown(target)
    assert len(shown) == len(footage.times) == 50
    steps = [float(b - a) for a, b in pairwise(shown[:49])]
    # Matroska, which the source is, has milliseconds.
    assert steps == pytest.approx([float(second * 5 / 4)] * 48, abs=1e-3)
    assert shown[48] - shown[0] == pytest.approx(float(60 * second), abs=2e-3)
    assert params.rate == Fraction(RATE * 4, 5)  # as the helper says, whatever the times
    _, start, seconds = sound_of(target)
    assert start == 0 and seconds == pytest.approx(2.0, abs=0.05)


def test_film_that_is_asked_for(tmp_path):
    path = write(tmp_path / "a.mp4", telecined(20, True), "bff")
    assert Footage.open(path, "film").mending == Mending("film", "top")
    assert Footage.open(path, "bottom").mending == Mending("all", "bottom")
    with pytest.raises(InputError, match=r"'sometimes': expected one of .*'film'"):
        Footage.open(path, "sometimes")  # type: ignore[arg-type]


def test_without_the_filters(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mkv", telecined(COUNT, False))
    none = frozenset({"bwdif", "split", "select", "metadata", "idet"})
    monkeypatch.setattr(looking, "filters_available", none)
    # Film is made whole as other fields are; asked for, it is refused.
    assert Footage.open(path).mending == Mending("all", "bottom")
    with pytest.raises(InputError, match=r"fieldmatch.*pip install av"):
        Footage.open(path, "film")
    monkeypatch.setattr(looking, "filters_available", none - {"idet"})
    assert Footage.open(path).mending == Mending()


def test_looking_takes_few_pictures(tmp_path, monkeypatch):
    """Of a long file some rows; each from a keyframe on."""
    path = write(
        tmp_path / "long.mp4",
        [moment(i) for i in range(40)] * 25,
        codec="libx264",
        options={"preset": "ultrafast", "g": "40", "sc_threshold": "0"},
    )
    footage, read_of = Footage.open(path), []
    reader = looking.VideoReader

    class Counting(reader):
        def pictures(self):
            for number, picture in super().pictures():
                read_of.append(number)
                yield number, picture

    monkeypatch.setattr(looking, "VideoReader", Counting)
    found = find_fields(path, footage.info, footage.times)
    assert found == Finding("whole")
    assert len(read_of) < 180
    assert max(read_of) - min(read_of) > 500


def test_a_file_of_two_kinds_is_left_to_its_marks(tmp_path):
    """Half of it is whole: nothing is right for all of it."""
    pictures = of_fields(93, True) + [moment(i) for i in range(93)]
    assert Footage.open(write(tmp_path / "a.mkv", pictures)).mending == Mending()


def test_tall_pictures_are_not_looked_at(tmp_path):
    tall = [np.repeat(p, 13, 0) for p in of_fields(6, True)]
    path = write(tmp_path / "a.mkv", tall, size=(W, 13 * H))
    assert Footage.open(path).finding == Finding()


def test_ten_bits_of_film_are_said_to_become_eight(tmp_path):
    pictures = telecined(COUNT, True)
    path = write_clip(
        tmp_path / "a.mkv",
        COUNT,
        codec="ffv1",
        size=(W, H),
        pixel_format="yuv422p10le",
        pictures=frames(pictures, pixel_format="yuv422p10le"),
    )
    footage = Footage.open(path)
    assert "(in 8 bits)" in footage.notes()[0]
    assert error(read(footage), truth(50)) < 1


@pytest.mark.parametrize("tags", [{"colorspace": 1}, {"colorspace": 9, "color_range": 2}], ids=str)
def test_film_keeps_its_colours(tmp_path, tags):
    """FFmpeg turns ten bits into eight to restore film, and must leave matrix and range alone."""
    moving = telecined(COUNT, True)
    red = np.zeros((len(moving), H, W, 3), np.uint8)
    red[..., 0], red[..., 1:] = 200, 30
    red[..., 0] -= (np.stack(moving) // 8).astype(np.uint8)  # so that there is motion
    matrix, full = tags["colorspace"], tags.get("color_range", 1)
    pictures = [
        av.VideoFrame.from_ndarray(one, "rgb24").reformat(
            format="yuv422p10le", dst_colorspace=matrix, dst_color_range=full
        )
        for one in red
    ]
    path = write_clip(
        tmp_path / "a.mkv",
        len(pictures),
        codec="ffv1",
        size=(W, H),
        pixel_format="yuv422p10le",
        pictures=pictures,
        tags=tags,
    )

    def colour(choice):
        with Footage.open(path, choice).reader(range(8)) as reader:
            return torch.stack(list(reader)).add(1).mul(127.5).mean((0, 2, 3))

    assert (colour("film") - colour("never")).abs().max() < 1.5


def test_full_range_stays_full(tmp_path):
    path = write(
        tmp_path / "a.avi",
        telecined(COUNT, True),
        codec="mjpeg",
        pixel_format="yuvj420p",
        base=Fraction(1, RATE),
        options={"qscale": "1", "flags": "+qscale", "global_quality": "118"},
    )
    made, left = read(Footage.open(path, "film")), read(Footage.open(path, "never"))
    assert (made[0] - left[0]).abs().max() < 1.5


@pytest.mark.parametrize("choice, fate", [("film", "left out"), ("never", "kept")])
def test_a_timecode_that_counts_other_frames_is_not_kept(tmp_path, choice, fate):
    path = write(tmp_path / "a.mkv", telecined(20, True), metadata={"timecode": "01:00:00:24"})
    info = Footage.open(path, choice).info
    params = EncodeParams(container=".mkv").for_source(info)
    (row,) = (row for row in contents(path, info, params) if "timecode" in row.what)
    assert row.fate == fate
