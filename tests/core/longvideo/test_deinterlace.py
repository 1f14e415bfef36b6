"""Interlaced video is read as whole pictures."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from made_fields import marked
from test_longvideo_size import PARAMS, run
from video_files import RATE, picture, write_clip

from uav_core.callbacks import ignore
from uav_core.errors import InputError
from uav_core.longvideo import Span
from uav_core.longvideo.source import Source
from uav_core.video import Deinterlace, Footage, probe
from uav_core.video.reading.deinterlace import Mending, deinterlaced

FEW = 4
COUNT, SIZE = 10, (64, 48)
LOSSLESS = "qp=0"


def moment(at: float) -> np.ndarray:
    """(h, w, 3) uint8: a bar that moves fast from left to right."""
    w, h = SIZE
    x = np.arange(w)
    bar = np.clip(8 - np.abs(x - 8 - 5 * at), 0, 4) / 4
    return np.repeat(np.tile(40 + 160 * bar, (h, 1))[..., None], 3, 2).astype(np.uint8)


def woven(i: int) -> np.ndarray:
    """Frame i as a television camera takes it: its odd lines half a frame later."""
    frame = moment(i)
    frame[1::2] = moment(i + 0.5)[1::2]
    return frame


def write(path, interlaced, make=woven, **options):
    frames = [av.VideoFrame.from_ndarray(make(i), format="rgb24") for i in range(COUNT)]
    params = f"{LOSSLESS}:tff=1" if interlaced else LOSSLESS
    pictures = [frame.reformat(format="yuv420p") for frame in frames]
    if interlaced:
        pictures = [marked(frame, "tff") for frame in pictures]
    made = {"size": SIZE, "options": {"x264-params": params}, "pictures": pictures, **options}
    return write_clip(path, COUNT, **made)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("fields") / "fields.mp4", True)


def read(path, start=0, stop=None, deinterlace: Deinterlace = "auto") -> torch.Tensor:
    footage = Footage.open(path, deinterlace)
    with footage.reader(range(start, stop or len(footage.times))) as reader:
        return torch.stack([frame.clone() for frame in reader])


def combs(frames: torch.Tensor) -> float:
    """How much lines differ from those beside them, mean of [-1, 1]; a bar that stands has 0."""
    return frames.diff(dim=-2).abs().mean().item()


def test_what_a_file_says(clip, tmp_path):
    assert probe(clip).interlaced
    assert not probe(write(tmp_path / "plain.mp4", False)).interlaced


def test_pictures_are_whole(clip):
    made, left = read(clip), read(clip, deinterlace="never")
    assert made.shape == left.shape == (COUNT, 3, SIZE[1], SIZE[0])
    assert combs(left) > 0.05
    assert combs(made[1:-1]) < combs(left) / 5
    # At the time of the first field.
    truth = torch.stack([torch.from_numpy(moment(i)).movedim(-1, 0) for i in range(COUNT)])
    truth = truth / 127.5 - 1
    assert (made - truth)[1:-1].abs().mean() < (left - truth)[1:-1].abs().mean() / 3


@pytest.mark.parametrize("start, stop", [(0, 3), (1, 2), (4, 7), (9, 10), (5, 10)])
def test_a_range_gives_the_frames_of_the_whole(clip, start, stop):
    assert torch.equal(read(clip, start, stop), read(clip)[start:stop])


@pytest.mark.parametrize("start", [3, 7])
def test_a_range_behind_a_keyframe_looks_at_the_picture_before_it(tmp_path, start):
    options = {"x264-params": f"{LOSSLESS}:tff=1:keyint={start}:min-keyint=1:scenecut=0"}
    path = write(tmp_path / "keys.mp4", True, options=options)
    assert torch.equal(read(path, start), read(path)[start:])


@pytest.mark.parametrize("choice", ["auto", "always", "top"])
def test_a_file_that_lost_the_mark(clip, tmp_path, choice):
    lost = write(tmp_path / "lost.mp4", False)
    # bwdif looks at the same pictures in both.
    torch.testing.assert_close(read(lost, deinterlace=choice), read(clip))
    torch.testing.assert_close(
        read(lost, deinterlace="never"), read(clip, deinterlace="never"), rtol=0, atol=0
    )


def test_progressive_video_stays_as_it_is(tmp_path):
    path = write(tmp_path / "plain.mp4", False, make=moment)
    assert Footage.open(path).mending == Mending()
    assert torch.equal(read(path), read(path, deinterlace="never"))


def test_every_picture_keeps_its_time_when_sizes_change():
    frames = [
        av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24").reformat(format="yuv420p")
        for i, size in enumerate([(48, 32)] * 3 + [(64, 32)] * 2)
    ]
    times = [0, 3, 4, 10, 11]
    out = list(deinterlaced(iter(zip(times, frames, strict=True)), Mending("all")))
    assert [time for time, _ in out] == times
    assert [(f.width, f.height) for _, f in out] == [(f.width, f.height) for f in frames]


def test_another_word_is_refused(clip):
    with pytest.raises(InputError, match=r"'sometimes': expected one of .*'never'"):
        Footage.open(clip, "sometimes")  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["auto", "never"])
def test_a_long_video_is_made_of_whole_pictures(clip, tmp_path, choice):
    params = replace(PARAMS, deinterlace=choice)
    span = Span(duration=FEW / RATE)
    report, engine = run(clip, tmp_path, params, span=span)
    assert torch.equal(torch.stack(engine.given), read(clip, 0, FEW, deinterlace=choice))
    assert ("The video is interlaced:" in report.to_text()) == (choice == "auto")


def test_it_belongs_to_the_job_where_it_changes_something(clip, tmp_path):
    plain = write(tmp_path / "plain.mp4", False, make=moment)

    def settings(path, choice):
        params = replace(PARAMS, deinterlace=choice)
        assert "deinterlace" not in params.settings()
        return Source.open(path, params, None, ignore).settings()

    assert settings(clip, "never") == settings(plain, "never") == settings(plain, "auto")
    # As before anything was looked for, so that jobs begun then go on.
    lost = write(tmp_path / "lost.mp4", False)
    for path, choice, kept in (
        (clip, "auto", "auto"),
        (clip, "always", "always"),
        (lost, "always", "always"),
        (plain, "always", "always"),
    ):
        assert settings(path, choice) == {**settings(path, "never"), "deinterlace": kept}
    # What was not done before makes another job.
    assert settings(lost, "auto")["deinterlace"] == "always"
    for order in ("top", "bottom"):
        assert settings(lost, order)["deinterlace"] == {"kind": "all", "order": order}


@pytest.mark.parametrize(("pixel_format", "told"), [("yuv420p", False), ("yuv422p10le", True)])
def test_film_whose_colours_were_changed_before_is_another_job(tmp_path, pixel_format, told):
    path = write_clip(
        tmp_path / "a.mkv", 10, codec="ffv1", size=(96, 64), pixel_format=pixel_format
    )
    source = Source.open(path, replace(PARAMS, deinterlace="film"), None, ignore)
    assert ("film_colors" in source.settings()) is told
