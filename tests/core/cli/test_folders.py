"""Folders as people have them."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av.codec.codec
import av.error
import pytest
from PIL import Image, features
from video_files import write_clip

from uav_core import InputError
from uav_core.cli.folders import plan_folder
from uav_core.jobs import FOLDER
from uav_core.video import VideoReader, probe

BASE = Fraction(1, 25)
CONTAINERS = (".mp4", ".mkv", ".mov")
# Ending, codec, pixel format and size of what PyAV can write.
KINDS = [
    (".MTS", "libx264", "yuv420p", (48, 32)),
    (".m2ts", "libx264", "yuv420p", (48, 32)),
    (".vob", "mpeg2video", "yuv420p", (48, 32)),
    (".3gp", "h263", "yuv420p", (176, 144)),
    (".gif", "gif", "rgb8", (48, 32)),
    (".mxf", "mpeg2video", "yuv422p", (48, 32)),
    (".ogv", "libtheora", "yuv420p", (48, 32)),
    (".webm", "libvpx", "yuv420p", (48, 32)),
    (".avi", "mpeg4", "yuv420p", (48, 32)),
    (".wmv", "wmv2", "yuv420p", (48, 32)),
    (".flv", "flv", "yuv420p", (48, 32)),
    (".nut", "ffv1", "bgr0", (48, 32)),
    (".dv", "dvvideo", "yuv420p", (720, 576)),
    (".mjpeg", "mjpeg", "yuvj420p", (48, 32)),
    (".y4m", "wrapped_avframe", "yuv420p", (48, 32)),
    (".MP4", "libx264", "yuv420p", (48, 32)),
]


def plan(source: Path, target: Path | None = None, **options):
    found = plan_folder(source, target or source.parent / "out", CONTAINERS, **options)
    videos = {p.relative_to(source).as_posix(): t for p, t in found.videos}
    return videos, {p.relative_to(source).as_posix(): why for p, why in found.left_out}


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize(("ending", "codec", "pixel_format", "size"), KINDS, ids=lambda k: str(k))
def test_every_kind_of_video_is_found(folder, ending, codec, pixel_format, size):
    try:
        path = folder / f"clip{ending}"
        write_clip(path, 12, codec=codec, pixel_format=pixel_format, size=size, base=BASE)
    except (ValueError, av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        pytest.skip(f"this PyAV cannot write it: {error}")
    assert (probe(path).width, len(list(VideoReader(path)))) == (size[0], 12)
    for name in (path.name, "clip"):  # by content, with or without an ending
        path = path.rename(folder / name)
        videos, left_out = plan(folder)
        assert list(videos) == [name] and not left_out
    path.rename(folder / f"clip{ending}")
    videos, _ = plan(folder)
    expected = ending.lower() if ending.lower() in CONTAINERS else ".mp4"
    assert videos[f"clip{ending}"].name == f"clip{expected}"


def test_a_video_is_known_by_its_content_and_what_is_none_is_named(folder):
    clip = write_clip(folder / "clip.mp4", 3)
    (folder / "without ending").write_bytes(clip.read_bytes())
    (folder / "clip.bin").write_bytes(clip.read_bytes())
    (folder / "._clip.mp4").write_bytes(b"\0\5\x16\7" * 100)
    (folder / ".hidden.mp4").write_bytes(clip.read_bytes())
    (folder / "notes.txt").write_text("Nothing to see.\n" * 50)
    (folder / "clip.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    (folder / "data.json").write_text('{"a": 1}')
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / FOLDER).mkdir()
    (folder / "deeper").mkdir()
    Image.new("RGB", (48, 32)).save(folder / "one.png")
    with wave.open(str(folder / "tone.wav"), "wb") as tone:
        tone.setnchannels(1), tone.setsampwidth(2), tone.setframerate(8000)
        tone.writeframes(bytes(8000))
    videos, left_out = plan(folder)
    # A file that is called a video is one, if a damaged one: it is reported as not done.
    assert set(videos) == {"clip.mp4", "without ending", "clip.bin", "empty.mp4"}
    assert left_out == {
        "._clip.mp4": "a companion file of macOS",
        ".hidden.mp4": "hidden",
        "notes.txt": left_out["notes.txt"],
        "clip.srt": "not a video",
        "data.json": "not a video",
        "empty.txt": "not a video",
        "gone.mp4": "not a regular file",
        "deeper": "a folder; use --sub-folders to include it",
        "one.png": "a single picture",
        "tone.wav": "not a video",
    }
    assert left_out["notes.txt"] in ("not a video", "text")


def test_a_photo_of_a_phone_is_no_video(folder):
    """FFmpeg reads these by its demuxer for MP4; of an animation it shows one picture first."""
    if not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    red, blue = (Image.new("RGB", (48, 32), color) for color in ("red", "blue"))
    red.save(folder / "photo.avif")
    red.save(folder / "moving.avif", save_all=True, append_images=[blue])
    photo = (folder / "photo.avif").read_bytes()
    (folder / "photo.HEIC").write_bytes(photo.replace(b"ftypavif", b"ftypheic"))
    videos, left_out = plan(folder)
    photos = ("photo.HEIC", "photo.avif", "moving.avif")
    assert not videos and left_out == dict.fromkeys(photos, "a single picture")


def test_no_two_results_have_one_name(folder):
    for name in ("clip.mp4", "clip.avi", "clip.wmv", "CLIP.mkv", "Clip.MP4", "clip_avi.mp4"):
        write_clip(folder / name, 2, codec="mpeg4" if name[-3:] != "wmv" else "wmv2")
    videos, _ = plan(folder)
    names = [target.name for target in videos.values()]
    assert len({name.casefold() for name in names}) == len(videos) == 6
    assert videos["clip_avi.mp4"].name == "clip_avi.mp4" and videos["CLIP.mkv"].name == "CLIP.mkv"
    assert {videos["Clip.MP4"].name, videos["clip.mp4"].name} & {"Clip.mp4", "clip.mp4"}
    assert videos["clip.wmv"].name == "clip_wmv.mp4"
    assert videos["clip.avi"].name == "clip_avi_2.mp4"
    assert plan(folder)[0] == videos


def test_two_of_one_name_that_both_change_their_ending(folder):
    for name in ("clip.avi", "clip.wmv"):
        write_clip(folder / name, 2, codec="mpeg4" if name[-3:] != "wmv" else "wmv2")
    videos, _ = plan(folder)
    assert [t.name for t in videos.values()] == ["clip_avi.mp4", "clip_wmv.mp4"]


def test_names_that_some_system_refuses_are_changed(folder):
    clip = write_clip(folder / "con.avi", 2, codec="mpeg4")
    long = "\N{SNOWMAN}" * 83 + ".mp4"
    for name in ("Film: part 1.avi", "tab\t.mp4", long):
        (folder / name).write_bytes(clip.read_bytes())
    videos, _ = plan(folder)
    assert {name: target.name for name, target in videos.items()} == {
        "con.avi": "_con.mp4",
        "Film: part 1.avi": "Film_ part 1.mp4",
        "tab\t.mp4": "tab_.mp4",
        long: "\N{SNOWMAN}" * 82 + ".mp4",
    }


def test_sub_folders_are_gone_into_where_asked(folder):
    for path in (
        "a/clip.mp4",
        "b/c/clip.mp4",
        ".trash/clip.mp4",
        f"{FOLDER}/clip.mp4",
        "out/x.mp4",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        write_clip(folder / path, 2)
    (folder / "round").symlink_to(folder)
    target = folder / "out"
    videos, left_out = plan(folder, target, sub_folders=True)
    assert videos == {
        "a/clip.mp4": target / "a" / "clip.mp4",
        "b/c/clip.mp4": target / "b" / "c" / "clip.mp4",
    }
    assert left_out == {".trash": "hidden", "round": "a link to a folder"}
    assert plan(folder, target)[0] == {}


def test_a_sub_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    write_clip(folder / "clip.mp4", 2)
    (folder / "lost+found").mkdir()
    names = Path.iterdir

    def closed(path):  # the tests may run as root, who may read everything
        if path.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return names(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    videos, left_out = plan(folder, sub_folders=True)
    assert list(videos) == ["clip.mp4"] and "denied" in left_out["lost+found"]


def test_results_do_not_lie_among_the_videos(folder):
    write_clip(folder / "clip.mp4", 2)
    with pytest.raises(InputError, match="expected another folder"):
        plan(folder, folder / ".." / "in")
