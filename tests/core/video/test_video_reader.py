import logging
import os
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
import torch
from video_files import HEIGHT, WIDTH, X265, brightness, level, needs_rotation, write_clip

from uav_core import InputError
from uav_core.video import (
    InputChangedError,
    VideoReader,
    check_unchanged,
    fingerprint,
    frame_times,
    probe,
)
from uav_core.video.color import guess_matrix

LIMITED, FULL = 1, 2
WEIGHTS = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}
NUMBERS = {"bt709": 1, "smpte170m": 6, "bt2020nc": 9}


def yuv_picture(values: np.ndarray, pixel_format: str) -> av.VideoFrame:
    """A picture with the given planes (3, h, w), no chroma subsampling."""
    frame = av.VideoFrame(values.shape[2], values.shape[1], pixel_format)
    planes: Any = frame.planes
    for plane, value in zip(planes, values, strict=True):
        view = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size).view(values.dtype)
        view[: values.shape[1], : values.shape[2]] = value
    return frame


def by_the_book(values: np.ndarray, matrix: str, full: bool, bits: int) -> np.ndarray:
    """ITU-R BT.709's formulas, (3, h, w) in [-1, 1]."""
    kr, kb = WEIGHTS[matrix]
    y, u, v = values.astype(float) / 2 ** (bits - 8)
    top = (2**bits - 1) / 2 ** (bits - 8)
    y = y / top if full else (y - 16) / 219
    u, v = ((c - 128) / (top if full else 224) for c in (u, v))
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.stack((r, g, b)).clip(0, 1) * 2 - 1


@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("pixel_format", "bits"), [("yuv444p", 8), ("yuv444p10le", 10)])
def test_colours_follow_the_tags(tmp_path, matrix, full, pixel_format, bits):
    rng = np.random.default_rng(0)
    values = rng.integers(16, 236, (3, HEIGHT, WIDTH)) * 2 ** (bits - 8)
    values[0, 0] = np.linspace(16, 235, WIDTH) * 2 ** (bits - 8)
    values[1:, 0] = 128 * 2 ** (bits - 8)
    values = values.astype(np.uint8 if bits == 8 else np.uint16)
    path = write_clip(
        tmp_path / "a.mkv",
        1,
        pixel_format=pixel_format,
        codec="ffv1",
        tags={"color_range": FULL if full else LIMITED, "colorspace": NUMBERS[matrix]},
        pictures=[yuv_picture(values, pixel_format)],
    )
    (frame,) = VideoReader(path)
    expected = torch.from_numpy(by_the_book(values, matrix, full, bits)).float()
    # Half a level of 8 bits; deeper sources keep more.
    tolerance = 1.1 / 255 if bits == 8 else 0.25 / 255
    assert (frame - expected).abs().max() < tolerance


def test_untagged_colour_is_taken_by_size(tmp_path):
    info = probe(write_clip(tmp_path / "a.mp4"))
    assert guess_matrix(info.color, 720, 576) == "smpte170m"
    assert guess_matrix(info.color, 1280, 720) == "bt709"


@pytest.mark.parametrize("full", [False, True])
def test_gray_pictures_keep_black_and_white(tmp_path, full):
    black, white = (0, 255) if full else (16, 235)
    frame = av.VideoFrame(WIDTH, HEIGHT, "gray")
    plane: Any = frame.planes[0]
    view = np.frombuffer(plane, np.uint8).reshape(HEIGHT, -1)
    view[:, : WIDTH // 2], view[:, WIDTH // 2 :] = black, white
    path = write_clip(
        tmp_path / "a.mkv",
        1,
        codec="ffv1",
        pixel_format="gray",
        tags={"color_range": FULL if full else LIMITED},
        pictures=[frame],
    )
    (frame,) = VideoReader(path)
    assert frame[:, :, : WIDTH // 2].max() < -0.999 and frame[:, :, WIDTH // 2 :].min() > 0.999


def test_ten_bits_stay_ten_bits(tmp_path):
    values = np.full((3, 16, 1024), 512, np.uint16)
    values[0] = np.linspace(64, 940, 1024)
    path = write_clip(
        tmp_path / "a.mkv",
        1,
        size=(1024, 16),
        codec="ffv1",
        pixel_format="yuv444p10le",
        pictures=[yuv_picture(values, "yuv444p10le")],
    )
    (frame,) = VideoReader(path)
    assert frame[0, 0].unique().numel() == np.unique(values[0]).size == 877
    assert frame[0, 0, 0] == -1 and frame[0, 0, -1] == 1


def test_alpha_is_dropped(tmp_path):
    frame = av.VideoFrame.from_ndarray(
        np.full((HEIGHT, WIDTH, 4), (10, 20, 30, 0), np.uint8), format="bgra"
    )
    path = write_clip(tmp_path / "a.mkv", 1, codec="ffv1", pixel_format="bgra", pictures=[frame])
    (frame,) = VideoReader(path)
    expected = torch.tensor([30, 20, 10]).view(3, 1, 1) / 127.5 - 1
    torch.testing.assert_close(frame, expected.expand(3, HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("angle", "turn"),
    [
        (-90, lambda x: x.rot90(-1, (1, 2))),
        (90, lambda x: x.rot90(1, (1, 2))),
        (180, lambda x: x.rot90(2, (1, 2))),
    ],
)
def test_rotation_is_applied(tmp_path, angle, turn):
    (upright,) = VideoReader(write_clip(tmp_path / "a.mp4", 1))
    (turned,) = VideoReader(write_clip(tmp_path / "b.mp4", 1, rotation=angle))
    assert torch.equal(turned, turn(upright))


@pytest.mark.parametrize("flips", [{"hflip": True}, {"vflip": True}])
def test_mirroring_is_applied(tmp_path, flips):
    needs_rotation()
    (upright,) = VideoReader(write_clip(tmp_path / "a.mp4", 1))
    path = tmp_path / "b.mp4"
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.set_display_rotation(0, **flips)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    (mirrored,) = VideoReader(path)
    assert torch.equal(mirrored, upright.flip(2 if "hflip" in flips else 1))


OPEN = {"g": "7", "x264-params": "open-gop=1:bframes=3:b-adapt=0"}


HEVC = {"x265-params": f"{X265}:keyint=8"}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.mp4", {"options": {"g": "8", "bf": "2"}}),
        ("open.mp4", {"options": OPEN}),
        ("open.mkv", {"options": OPEN}),
        ("open.ts", {"options": OPEN}),
        ("refresh.mkv", {"options": {"g": "9", "x264-params": "intra-refresh=1:bframes=0"}}),
        ("packed.avi", {"codec": "mpeg4", "options": {"bf": "2"}, "base": Fraction(1, 25)}),
        ("vfr.mkv", {"times": [i * i * 40 for i in range(30)], "base": Fraction(1, 1000)}),
        ("hevc.mp4", {"codec": "libx265", "options": HEVC, "size": (96, 64)}),
        ("late.mp4", {"times": [99999 + 512 * i for i in range(30)]}),
        ("raw.h264", {}),
    ],
)
def test_a_range_gives_the_frames_of_a_whole_read(tmp_path, name, arguments):
    path = write_clip(tmp_path / name, 30, **arguments)
    times, whole = frame_times(path), list(VideoReader(path))
    assert len(whole) == len(times) == 30
    for i, frame in enumerate(whole):
        assert abs(brightness(frame) - level(i)) < 8
    for start, stop in ((0, 1), (1, 4), (6, 9), (7, 8), (13, 15), (20, 30), (29, 30)):
        part = list(VideoReader(path, start, stop, times=times))
        assert len(part) == stop - start
        assert all(torch.equal(a, b) for a, b in zip(part, whole[start:stop], strict=True)), start


def test_odd_sizes(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 2, size=(47, 33), codec="ffv1")
    assert [tuple(f.shape) for f in VideoReader(path)] == [(3, 33, 47)] * 2


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (3, 3), (0, 13), (12, None)])
def test_ranges_outside_are_named(tmp_path, start, stop):
    with pytest.raises(InputError, match="12 frames"):
        VideoReader(write_clip(tmp_path / "a.mp4"), start, stop)


def test_the_file_is_closed(tmp_path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    path = write_clip(tmp_path / "a.mp4")
    before = descriptors()
    with VideoReader(path) as frames:
        next(iter(frames))
        assert descriptors() > before
    assert descriptors() == before


def test_a_cancel_gets_through(tmp_path):
    class Cancelled(Exception):
        pass

    def check():
        raise Cancelled

    path = write_clip(tmp_path / "a.mp4")
    frames = VideoReader(path, times=frame_times(path), check_cancelled=check)
    with pytest.raises(Cancelled):
        list(frames)


def test_damage_in_the_middle_repeats_the_picture(tmp_path, caplog):
    path = write_clip(tmp_path / "a.mkv", 30, codec="ffv1", options={"slicecrc": "1", "g": "1"})
    times = frame_times(path)
    with av.open(str(path)) as container:
        packet = next(p for p in container.demux(video=0) if p.pts == times[10])
        place = path.read_bytes().index(bytes(packet))
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 64)
    with caplog.at_level(logging.WARNING):
        frames = list(VideoReader(path))
    assert len(frames) == 30
    expected = [level(i) for i in range(10)] + [level(9)] + [level(i) for i in range(11, 30)]
    assert [brightness(f) for f in frames] == pytest.approx(expected, abs=2)
    assert "1 frames" in caplog.text


def test_a_range_that_is_all_damage_repeats_as_well(tmp_path):
    path = write_clip(tmp_path / "a.mkv", 30, codec="ffv1", options={"slicecrc": "1", "g": "1"})
    times = frame_times(path)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in [p for p in container.demux(video=0) if p.size][20:]:
            place = content.index(bytes(packet))
            content[place : place + 64] = b"\xff" * 64
    path.write_bytes(content)
    part, whole = list(VideoReader(path, 25, 30, times=times)), list(VideoReader(path))
    assert len(part) == 5
    assert all(torch.equal(frame, whole[19]) for frame in (*part, *whole[20:]))


def test_fingerprints_tell_a_replaced_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(1000))
    known = fingerprint(path)
    os.utime(path, ns=(1, 1))
    check_unchanged(known, path)  # another time, the same contents
    path.write_bytes(bytes(999) + b"x")
    with pytest.raises(InputChangedError, match="start a new run"):
        check_unchanged(known, path)
    path.write_bytes(bytes(1001))
    with pytest.raises(InputChangedError, match="it had 1000 bytes, now 1001"):
        check_unchanged(known, path)
    path.unlink()
    with pytest.raises(InputChangedError, match="no longer"):
        check_unchanged(known, path)


def test_large_files_are_sampled_at_both_ends(tmp_path):
    path, size = tmp_path / "a.bin", 65 << 20
    with open(path, "wb") as file:
        file.truncate(size)
    known = fingerprint(path)
    for place in (0, size - 1):
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"x")
        with pytest.raises(InputChangedError):
            check_unchanged(known, path)
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"\0")
    check_unchanged(known, path)


def write_floats(path, value: float, pixel_format: str):
    """Three pictures of 0.25, 0.5, 0.75 (green, blue, red), the middle one with ``value``."""
    kind = np.float16 if "f16" in pixel_format else np.float32
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 16, pixel_format
        for i in range(3):
            frame = av.VideoFrame(32, 16, pixel_format)
            for plane, level in zip(frame.planes, (0.25, 0.5, 0.75, 1.0), strict=False):
                data = np.full(plane.buffer_size // np.dtype(kind).itemsize, level, kind)
                if i == 1:
                    data[3] = value
                plane.update(data.tobytes())
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        if container.streams.video[0].format.name != pixel_format:
            pytest.skip("the FFmpeg of this PyAV cannot write floats into NUT")
    return path


@pytest.mark.parametrize("pixel_format", ["gbrpf32le", "gbrapf32le"])
def test_floating_point_pictures_are_exact(tmp_path, pixel_format, caplog):
    path = write_floats(tmp_path / "f.nut", 1.2, pixel_format)
    frames = list(VideoReader(path))
    assert frames[0][:, 2, 3].tolist() == [0.5, -0.5, 0.0]
    assert frames[1].max() == 1 and caplog.text.count("are clipped") == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [(float("nan"), "Frame 1 .* times NaN"), (float("inf"), "infinity"), (255.0, "divide by")],
)
def test_floating_point_pictures_that_cannot_be_are_named(tmp_path, value, says):
    path = write_floats(tmp_path / "f.nut", value, "gbrpf32le")
    with pytest.raises(InputError, match=says):
        list(VideoReader(path))
