import io
import logging
import shutil
from fractions import Fraction

import av
import pytest
from av import logging as av_logging
from PIL import Image
from video_files import picture, plain_times, write_clip

from uav_core.video import UnreadableVideoError, frame_times, probe
from uav_core.video.color import Color
from uav_core.video.reading.side_data import Orientation

BT709 = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}


def test_facts_of_a_clip(tmp_path):
    path = write_clip(
        tmp_path / "a.mp4",
        pixel_format="yuv420p10le",
        aspect=Fraction(4, 3),
        tags=BT709,
    )
    info = probe(path)
    assert (info.width, info.height, info.orientation) == (48, 32, Orientation())
    assert info.sample_aspect == Fraction(4, 3)
    assert info.bit_depth == 10 and info.rate == 25
    assert info.color == Color("limited", "bt709", "bt709", "bt709")


def test_untagged_colour_is_unknown(tmp_path):
    assert probe(write_clip(tmp_path / "a.mp4")).color.matrix == "unknown"


@pytest.mark.parametrize(
    ("angle", "orientation"),
    [
        (-90, Orientation(transpose=True, flip_x=True)),
        (90, Orientation(transpose=True, flip_y=True)),
        (180, Orientation(flip_x=True, flip_y=True)),
        (0, Orientation()),
    ],
)
def test_rotation_swaps_the_sides_and_the_aspect(tmp_path, angle, orientation):
    info = probe(write_clip(tmp_path / "a.mp4", rotation=angle, aspect=Fraction(4, 3)))
    turned = orientation.transpose
    assert info.orientation == orientation
    assert (info.width, info.height) == ((32, 48) if turned else (48, 32))
    assert info.sample_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))
    assert info.coded_size == (48, 32)


# EXIF's orientations without a mirror.
@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (1, Orientation()),
        (3, Orientation(flip_x=True, flip_y=True)),
        (6, Orientation(transpose=True, flip_x=True)),
        (8, Orientation(transpose=True, flip_y=True)),
    ],
)
def test_a_photo_with_exif_is_read(tmp_path, exif, orientation):
    tags, photo = Image.Exif(), io.BytesIO()
    tags[0x112] = exif
    Image.fromarray(picture(0)).save(photo, "jpeg", exif=tags)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuvj420p"
        packet = av.Packet(photo.getvalue())
        packet.pts, packet.dts, packet.time_base = 0, 0, Fraction(1, 25)
        packet.stream, packet.is_keyframe = stream, True
        container.mux(packet)
    info = probe(tmp_path / "a.avi")
    assert info.orientation == orientation and info.coded_size == (48, 32)


VFR = [0, 512, 600, 2000, 2001, 5000, 5512, 9000, 9100, 9999, 12800, 20000]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cfr.mp4", {}),
        ("cfr.mkv", {}),
        ("bframes.mp4", {"options": {"bf": "3", "x264-params": "b-adapt=0"}}),
        ("vfr.mp4", {"times": VFR}),
        ("late.mp4", {"times": [t + 25600 for t in VFR]}),
        ("late.ts", {"times": [t + 25600 for t in VFR]}),
        ("edit.mp4", {"times": [t - 2560 for t in range(0, 512 * 12, 512)]}),
        ("packed.avi", {"codec": "mpeg4", "options": {"bf": "2"}, "base": Fraction(1, 25)}),
        ("old.mpg", {"codec": "mpeg2video", "base": Fraction(1, 25)}),
        ("raw.h264", {}),
        ("interlaced.ts", {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}}),
        ("open.mkv", {"options": {"g": "5", "x264-params": "open-gop=1:bframes=2:b-adapt=0"}}),
    ],
)
def test_times_are_those_of_decoding(tmp_path, name, arguments):
    if name.startswith("edit"):
        arguments = {**arguments, "container_options": {"avoid_negative_ts": "disabled"}}
    path = write_clip(tmp_path / name, **arguments)
    times, decoded = frame_times(path), plain_times(path)
    assert len(frame_times(path)) == len(decoded)
    if None not in decoded:
        assert times == decoded
    assert times == sorted(set(times))


def test_an_edit_list_hides_frames(tmp_path):
    """The case above does hide some: otherwise it would test nothing."""
    path = write_clip(
        tmp_path / "a.mp4",
        times=[t - 2560 for t in range(0, 512 * 12, 512)],
        container_options={"avoid_negative_ts": "disabled"},
    )
    assert 0 < len(frame_times(path)) < 12


def test_what_cannot_be_read_is_named(tmp_path):
    def refused(name, content):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UnreadableVideoError) as error:
            probe(path)
        with pytest.raises(UnreadableVideoError):
            frame_times(path)
        return str(error.value)

    whole = write_clip(tmp_path / "whole.mp4").read_bytes()
    assert "cannot be opened" in refused("missing.mp4", None)
    assert "0 bytes" in refused("empty.mp4", b"")
    assert "not a video" in refused("text.mp4", b"no video at all " * 99)
    assert "moov" in refused("cut.mp4", whole[: whole.index(b"moov") - 4])
    with pytest.raises(UnreadableVideoError, match="folder"):
        probe(tmp_path)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "a.m4a"
    source = write_clip(tmp_path / "a.mp4", audio=(("aac", 0, 0.2),))
    with av.open(str(source)) as whole, av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream_from_template(whole.streams.audio[0], opaque=True)
        for packet in whole.demux(whole.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    with pytest.raises(UnreadableVideoError, match="no video stream"):
        probe(path)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_stream_without_frames_is_named(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = 48, 32
        container.start_encoding()
    with pytest.raises(UnreadableVideoError, match=r"ends before its first frame|no video stream"):
        probe(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_file_cut_in_its_data_gives_the_frames_before(tmp_path, name, caplog):
    options = {"g": "10", "bf": "0", "crf": "1"}
    whole = write_clip(
        tmp_path / name,
        40,
        options=options,
        container_options={"movflags": "faststart"} if name == "a.mp4" else {},
    )
    cut = tmp_path / f"cut-{name}"
    shutil.copy(whole, cut)
    with open(cut, "r+b") as file:
        file.truncate(whole.stat().st_size * 6 // 10)
    with caplog.at_level(logging.WARNING):
        times = frame_times(cut)
    assert 10 < len(times) < 40
    assert times == frame_times(whole)[: len(times)]
    if name == "a.mp4":
        assert f"{len(times)} of the 40 frames" in caplog.text


def test_messages_of_ffmpeg_are_kept_out_of_python(tmp_path):
    """As an older torchvision switches them on: a decoder's thread could then wait for ever."""
    before = av_logging.get_level()
    av_logging.set_level(av_logging.ERROR)
    try:
        probe(write_clip(tmp_path / "a.mp4", 2))
        assert av_logging.get_level() is None
    finally:
        av_logging.set_level(before)
