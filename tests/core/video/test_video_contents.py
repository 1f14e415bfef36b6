"""What a source holds is kept, or it is said what becomes of it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av.container
import numpy as np
import pytest
import torch
from video_files import X265, needs_rotation, picture, write_clip

from uav_core.video import (
    CODECS,
    EncodeParams,
    VideoReader,
    available_codecs,
    contents,
    encode_part,
    frame_times,
    join,
    probe,
)

FONT = b"no real font " * 20
MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
LIGHT = "1000,400"
needs_attachments = pytest.mark.skipif(
    not hasattr(av.container.OutputContainer, "add_attachment"),
    reason="this PyAV writes no attachments",
)


def rows(path: Path, ending: str = ".mp4", codec: str = "h264", **choices) -> list[str]:
    info = probe(path)
    params = EncodeParams(codec, ending, **choices).for_source(info)
    return [row.to_text() for row in contents(path, info, params)]


def joined(path: Path, ending: str, first: int = 0, **choices) -> Path:
    """The source, its frames as they are, as a finished file."""
    info, times = probe(path), frame_times(path)
    params = EncodeParams(container=ending, **choices).for_source(info)
    size = info.width, info.height
    frames = VideoReader(path, first, times=times, info=info)
    part = encode_part(path.with_name("part.mkv"), frames, params, size)
    target = path.with_name(f"out{ending}")
    join([part], target, times, path, params, first=first)
    return target


def test_nothing_is_said_of_an_ordinary_file(tmp_path):
    path = write_clip(tmp_path / "a.mp4", 3, audio=(("aac", 0, 0.2),))
    assert rows(path) == ["Kept: sound (aac, mono)."]


# --- transparency --------------------------------------------------------------------------------


def transparent(path: Path, codec: str, pixel_format: str, tag: bool = False) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pixel_format
        if tag:
            stream.metadata["alpha_mode"] = "1"
        for i in range(3):
            pixels = np.dstack([picture(i), np.full((32, 48), 100, np.uint8)])
            frame = av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format=pixel_format)
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "tag"),
    [
        ("a.webm", "libvpx-vp9", "yuv420p", True),
        ("a.webm", "libvpx", "yuv420p", True),
        ("a.mov", "prores_ks", "yuva444p10le", False),
        ("a.mkv", "ffv1", "bgra", False),
        ("a.mov", "qtrle", "argb", False),
        ("a.mov", "png", "rgba", False),
    ],
)
def test_transparency_is_seen(tmp_path, name, codec, pixel_format, tag):
    path = transparent(tmp_path / name, codec, pixel_format, tag)
    assert "Left out: transparency: for short clips, 'Upscale Alpha' keeps it." in rows(path)


def test_a_gif_without_transparency_has_none(tmp_path):
    path = write_clip(tmp_path / "a.gif", 3, codec="gif", pixel_format="rgb8", base=Fraction(1, 25))
    assert not probe(path).has_alpha


def hevc(path: Path, extra: bytes) -> Path:
    """HEVC in MP4 with one more unit in every packet."""
    write_clip(
        path.with_name("plain.mp4"),
        3,
        codec="libx265",
        options={"x265-params": X265},
        size=(96, 64),
    )
    with av.open(str(path.with_name("plain.mp4"))) as source, av.open(str(path), "w") as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template, opaque=True)
        for packet in source.demux(template):
            if packet.size:
                unit = len(extra).to_bytes(4, "big") + extra if extra else b""
                more = av.Packet(unit + bytes(packet))
                more.pts, more.dts, more.time_base = packet.pts, packet.dts, packet.time_base
                more.is_keyframe, more.stream = packet.is_keyframe, stream
                target.mux(more)
    return path


@pytest.mark.skipif("h265" not in available_codecs(), reason="this PyAV has no x265")
@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (b"", False),
        (bytes([39 << 1, 1, 165, 4, 0x20, 0x7F, 0x80, 0x40, 0x80]), True),
        # After another message, of 300 bytes.
        (bytes([39 << 1, 1, 5, 255, 45, *[7] * 300, 165, 1, 0, 0x80]), True),
        (bytes([39 << 1, 1, 5, 3, 165, 165, 165, 0x80]), False),
    ],
    ids=["plain", "alpha", "alpha later", "another message"],
)
def test_transparency_of_hevc_is_seen(tmp_path, extra, expected):
    assert probe(hevc(tmp_path / "a.mp4", extra)).has_alpha is expected


# --- tracks ---------------------------------------------------------------------------------------


def crowded(path: Path) -> Path:
    """Two videos, a sound, subtitles, and a font where it can be."""
    with av.open(str(path), "w") as container:
        streams = []
        for size in ((48, 32), (64, 48)):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            streams.append((stream, size))
        sound = container.add_stream("pcm_s16le", rate=48000, layout="mono")
        sound.metadata["language"] = "ger"
        if hasattr(container, "add_attachment"):
            container.add_attachment("a.ttf", "font/ttf", FONT)
        for i in range(6):
            for stream, size in streams:
                frame = av.VideoFrame.from_ndarray(picture(i, *size), "rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.int16), "s16", "mono")
        silence.sample_rate, silence.pts = 48000, 0
        container.mux(sound.encode(silence))
        for stream in (sound, *(s for s, _ in streams)):
            container.mux(stream.encode(None))
    return path


def test_tracks_that_go_and_change_are_named(tmp_path):
    said = rows(crowded(tmp_path / "a.mkv"))
    assert "Left out: another video track (mpeg4): only the first is upscaled." in said
    (sound,) = (row for row in said if "sound (ger, pcm_s16le" in row)
    assert sound.startswith("Converted") and sound.endswith("it becomes aac.")


def test_sound_without_a_decoder_is_named(tmp_path):
    path = crowded(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    said = rows(path)
    assert (
        "Left out: sound (ger, an unknown codec): this version of PyAV cannot decode it." in said
    ), said
    assert joined(path, ".mkv").exists()


@needs_attachments
def test_fonts_are_kept_in_matroska_and_said_elsewhere(tmp_path):
    path = crowded(tmp_path / "a.mkv")
    assert "Kept: the attachment a.ttf." in rows(path, ".mkv")
    why = "it cannot be written into .mp4; .mkv keeps it, with a recent PyAV"
    assert f"Left out: the attachment a.ttf: {why}." in rows(path)
    made = joined(path, ".mkv")
    with av.open(str(made)) as container:
        (font,) = container.streams.attachments
        assert (font.name, font.mimetype, bytes(font.data)) == ("a.ttf", "font/ttf", FONT)
    assert made.read_bytes() == joined(path, ".mkv").read_bytes()


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".mkv"])
def test_the_timecode_is_kept(tmp_path, ending):
    path = write_clip(
        tmp_path / "a.mov", 6, metadata={"timecode": "01:02:03:04"}, base=Fraction(1, 25)
    )
    kept = "Kept: the timecode 01:02:03:04." in rows(path, ending)
    # PyAV 14 cannot give it to MP4 and MOV, and the report says so.
    assert kept or (int(av.__version__.split(".")[0]) == 14 and ending != ".mkv")
    with av.open(str(joined(path, ending))) as container:
        found = [
            value
            for holder in (container, *container.streams)
            for name, value in holder.metadata.items()
            if name.lower() == "timecode"
        ]
    assert set(found) == ({"01:02:03:04"} if kept else set())
    # From a later frame on it would be wrong.
    with av.open(str(joined(path, ending, first=2))) as container:
        assert not any("timecode" in s.metadata for s in (container, *container.streams))


# --- the picture ----------------------------------------------------------------------------------


def hdr(path: Path) -> Path:
    params = EncodeParams(container=".mkv", mastering=MASTERING, light_level=LIGHT)
    return write_clip(
        path,
        3,
        size=(96, 64),
        pixel_format="yuv420p10le",
        options={"x264-params": params.encoder_options((96, 64))["x264-params"]},
        tags={"color_primaries": 9, "color_trc": 16, "colorspace": 9},
    )


@pytest.mark.parametrize("codec", ["h264", "h265", "av1"])
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_the_light_of_an_hdr_master_is_kept(tmp_path, codec, ending):
    if codec not in available_codecs() or "h264" not in available_codecs():
        pytest.skip("this PyAV cannot encode it")
    source = hdr(tmp_path / "a.mkv")
    assert (probe(source).mastering, probe(source).light_level) == (MASTERING, LIGHT)
    assert "Kept: the HDR mastering display." in rows(source, ending, codec)
    made = probe(joined(source, ending, codec=codec))
    assert made.light_level == LIGHT
    if codec != "av1":
        assert made.mastering == MASTERING
    else:  # in other units, to 16 bits
        numbers = [
            [int(n) for n in text.replace("(", ",").replace(")", ",").split(",") if n.isdigit()]
            for text in (made.mastering, MASTERING)
        ]
        assert np.allclose(*numbers, rtol=0.03)


def test_the_light_of_an_hdr_master_that_a_codec_cannot_say_is_named(tmp_path):
    source = hdr(tmp_path / "a.mkv")
    said = rows(source, ".mkv", "ffv1")
    assert "Left out: the HDR light level: ffv1 cannot store it; h264, h265 and av1 can." in said


def test_no_light_leaves_the_encoder_and_the_job_as_they_were():
    from uav_core.longvideo.run import plain

    params = EncodeParams()
    assert "cll" not in str(params.encoder_options((96, 64)))
    assert not {"mastering", "light_level"} & set(plain(params))


@pytest.mark.parametrize(
    ("rotation", "says"),
    [
        (90, "Converted: the rotation flag: the frames themselves are rotated."),
        (45, "Left out: the rotation flag of"),
    ],
)
def test_a_turned_picture_is_named(tmp_path, rotation, says):
    needs_rotation()
    said = rows(write_clip(tmp_path / "a.mp4", 3, rotation=rotation))
    assert any(row.startswith(says) for row in said)


def test_pixels_that_are_not_square_are_named(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 3, aspect=Fraction(16, 15))
    assert rows(path) == ["Kept: the pixel aspect ratio 16/15."]


@pytest.mark.parametrize(
    ("codec", "ending"), [(name, e) for name, codec in CODECS.items() for e in codec.containers]
)
def test_pixels_that_are_not_square_stay_so_or_are_named(tmp_path, codec, ending):
    if codec not in available_codecs():
        pytest.skip(f"this PyAV has no {codec}")
    path = write_clip(tmp_path / "a.mkv", 3, size=(64, 64), aspect=Fraction(16, 15))
    kept = probe(joined(path, ending, codec=codec)).sample_aspect == Fraction(16, 15)
    (said,) = rows(path, ending, codec)
    assert said.startswith("Kept: " if kept else "Left out: ")
    assert kept or ending == ".mkv"


def test_bits_that_are_lost_are_named(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 3, codec="ffv1", pixel_format="yuv420p12le")
    assert rows(path) == ["Converted: 12 bits per channel: they become 10."]
    assert torch.stack(list(VideoReader(path))).isfinite().all()


def test_a_damaged_first_picture_hides_nothing(tmp_path):
    path = write_clip(tmp_path / "a.mkv", options={"g": "1"}, rotation=90)
    with av.open(str(path)) as container:
        first = bytes(next(p for p in container.demux(video=0) if p.size))
    path.write_bytes(path.read_bytes().replace(first, b"\x7f" * len(first)))
    info = probe(path)
    found = contents(path, info, EncodeParams().for_source(info))
    assert any("rotation" in row.what for row in found)
