"""Every frame that is read is the frame of the file, at the time at which players show it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise, product
from pathlib import Path

import av
import made_times as made
import pytest
import torch
from video_files import brightness, level

from uav_core.video import EncodeParams, VideoReader, encode_part, frame_times, join, probe
from uav_core.video.reading.clocks import AHEAD_BROKEN, AHEAD_SOUND, Track, find_segments, shifts_of
from uav_core.video.reading.ordering import best_times, places_of_lost

COUNT = 20
X264 = {"crf": "6", "preset": "veryfast"}
B = "b-adapt=0:scenecut=0:weightp=0:bframes="
GOPS = {
    "intra": {"g": "1"},
    "no-b": {"g": "6", "bf": "0"},
    "b": {"g": "6", "bf": "2"},
    "pyramid": {"g": "9", "x264-params": f"{B}3:b-pyramid=1"},
    "open": {"g": "6", "x264-params": f"{B}2:open-gop=1"},
}
VP9 = {"lag-in-frames": "8", "auto-alt-ref": "1", "g": "9", "cpu-used": "8"}
QUALITY = {"libx264": X264, "mpeg2video": {"q:v": "2"}, "mpeg4": {"q:v": "2"}}
RAW = {"h264": "h264", "m2v": "mpeg2video"}

# (file ending, codec, group of pictures)
FORMS = [
    *product(("ts", "mkv", "mp4", "mov", "avi", "h264"), ("libx264",), GOPS),
    *product(("ts", "vob", "mpg", "m2v", "mkv"), ("mpeg2video",), ("intra", "no-b", "b")),
    *product(("avi", "mkv", "mp4", "ts"), ("mpeg4",), ("intra", "no-b", "b")),
    # Not HEVC: x265 writes beyond its memory with pictures as small as these.
    *product(("mkv", "avi"), ("ffv1", "mjpeg"), ("intra",)),
    *product(("webm",), ("libvpx", "libvpx-vp9"), ("hidden",)),
]
JOINT = [form for form in FORMS if form[0] in ("ts", "vob", "mpg", "m2v", "h264")]


def write(path: Path, codec: str, gop: str, frames=range(COUNT), **more) -> Path:
    options = {**QUALITY.get(codec, {}), **({} if codec == "mjpeg" else GOPS.get(gop, {}))}
    if codec.startswith("libvpx"):
        options = VP9
    if path.suffix in (".vob", ".mpg"):
        more["format"] = "vob" if path.suffix == ".vob" else "mpeg"
    if path.suffix == ".m2v":
        more["format"] = "mpeg2video"
    return made.write(path, frames, codec, options, **more)


def check(
    path: Path, frames: Sequence[int] = range(COUNT), *, damaged: bool = False, even: bool = True
):
    """The property: frames are the decoder's, in its order, at rising times, in every range."""
    times = frame_times(path)
    whole = list(VideoReader(path, times=times))
    assert len(whole) == len(times)
    lost = {i for i in range(len(times)) if times.lost(i)} | times.found_lost
    shown = [brightness(f) for i, f in enumerate(whole) if i not in lost]
    if damaged:
        assert shown == pytest.approx(made.plain_frames(path), abs=6)
    else:
        assert not lost and not times.damage()
        assert shown == pytest.approx([level(i) for i in frames], abs=8)
    for i in lost:
        assert torch.equal(whole[i], whole[i - 1])
    base = probe(path).time_base
    steps = [float((b - a) * base) for a, b in pairwise(times)]
    assert min(steps) > 0.01
    if even:
        assert steps == pytest.approx([0.04] * len(steps), abs=0.0011)
    info = probe(path)
    for start in {0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 1} & set(range(len(whole))):
        part = list(VideoReader(path, start, min(start + 2, len(whole)), times=times, info=info))
        for a, b in zip(part, whole[start:], strict=False):
            assert torch.equal(a, b), f"frame {start} of a range"
    return times


@pytest.mark.parametrize(("ending", "codec", "gop"), FORMS)
def test_frames_of_whole_files(tmp_path, ending, codec, gop):
    # The times that FFmpeg gives to B-frames in .mpg run back by two frames near this file's end.
    even = (ending, gop) != ("mpg", "b")
    times = check(write(tmp_path / f"a.{ending}", codec, gop), even=even)
    assert not times.notes


@pytest.mark.parametrize(("ending", "codec", "gop"), JOINT)
def test_times_that_begin_again(tmp_path, ending, codec, gop):
    parts = [range(0, 8), range(8, 17), range(17, 26)]
    files = [write(tmp_path / f"{i}.{ending}", codec, gop, part) for i, part in enumerate(parts)]
    path = made.joined(tmp_path / f"joined.{ending}", files)
    # FFmpeg itself leaves a picture's time out where MPEG-2 shares packets with sound.
    times = check(path, range(26), even=ending not in ("vob", "mpg"))
    if ending in ("ts", "vob", "mpg"):
        assert "2 times" in times.notes[0]
        length = float((times[-1] - times[0]) * probe(path).time_base)
        assert length == pytest.approx(1.0, abs=0.13)


@pytest.mark.parametrize("place", ["first", "second", "middle", "key", "last", "many"])
@pytest.mark.parametrize("gop", ["no-b", "b", "open"])
@pytest.mark.parametrize("parts", [1, 3])
def test_lost_packets(tmp_path, gop, place, parts):
    lengths = [range(i * 12, i * 12 + 12) for i in range(parts)]
    path = made.joined(
        tmp_path / "a.ts",
        [write(tmp_path / f"{i}.ts", "libx264", gop, part) for i, part in enumerate(lengths)],
    )
    starts = made.begins(path)
    inside = {
        "first": lambda own: own[:1],
        "second": lambda own: own[1:2],
        "middle": lambda own: [i for i in own if i > starts[7]][:1],
        "key": lambda own: [i for i in own if i > starts[6] and i not in starts][:1],
        "last": lambda own: own[-1:],
        "many": lambda own: own[3::11],
    }
    times = check(made.without(path, inside[place]), damaged=True, even=False)
    lost = {"first": 12, "many": 8 * parts}.get(place, 1)
    assert len(times) >= 12 * parts - lost


@pytest.mark.parametrize(
    ("ending", "codec", "gop"),
    [
        form
        for form in FORMS
        if form[0] in ("mkv", "mp4", "avi", "ts", "vob", "h264") and form[1] != "ffv1"
    ],
)
def test_overwritten_bytes(tmp_path, ending, codec, gop):
    places = (0.3, 0.4) if ending == "mp4" else (0.5, 0.7)  # its index is at the end
    path = made.overwritten(write(tmp_path / f"a.{ending}", codec, gop), places)
    times = check(path, damaged=True, even=False)
    if len(times) < COUNT - 7:  # FFmpeg finds no way on in so short a Matroska file
        assert ending == "mkv" and any("contains only" in note for note in times.notes)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_damage_is_shown_alike_every_time(tmp_path, codec):
    """Several threads of a decoder may find it sooner or later, and conceal it otherwise."""
    path = made.overwritten(write(tmp_path / "a.mp4", codec, "b"), (0.3, 0.4))
    shown = {tuple(brightness(frame) for frame in VideoReader(path)) for _ in range(25)}
    assert len(shown) == 1


@pytest.mark.parametrize("gop", ["no-b", "b", "pyramid", "open"])
@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_pictures_without_times_of_their_own(tmp_path, gop, ending):
    source = write(tmp_path / "source.mp4", "libx264", gop)
    check(made.in_decoding_order(tmp_path / f"a.{ending}", source))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_matroska_copied_from_avi(tmp_path, codec):
    source = write(tmp_path / "a.avi", codec, "b")
    path = tmp_path / "a.mkv"
    with av.open(str(source)) as given, av.open(str(path), "w") as target:
        stream = given.streams.video[0]
        copy = target.add_stream_from_template(stream, opaque=True)
        for packet in given.demux(stream):
            if packet.size:
                packet.pts = packet.dts if packet.pts is None else packet.pts
                packet.stream = copy
                target.mux(packet)
    check(path)


@pytest.mark.parametrize(("ending", "gop"), [*product(("ts", "mkv", "mp4"), ("no-b", "b"))])
@pytest.mark.parametrize("sound", [False, True])
def test_an_hour_ahead_is_not_an_hour_long(tmp_path, ending, gop, sound):
    path = tmp_path / f"a.{ending}"
    write(path, "libx264", gop, jump=(9, 3600), sound="aac" if sound else "")
    times = check(path)
    assert "1 times" in times.notes[0]


@pytest.mark.parametrize("late", [9, COUNT - 1])
def test_one_picture_a_day_late(tmp_path, late):
    """A wrong time of showing, beside a right one of decoding, moves no picture to the end."""
    path = made.late(write(tmp_path / "a.ts", "libx264", "b"), late, 20 * 3600)
    check(path)


@pytest.mark.parametrize("gop", ["no-b", "b"])
def test_clocks_that_run_over(tmp_path, gop):
    """33 bits of 1/90000 s: 26.5 hours."""
    full = 2**33 / 90000
    for start in (full - 0.5, full - 2.0):
        check(write(tmp_path / "a.ts", "libx264", gop, start=start))
    ends = write(tmp_path / "0.ts", "libx264", gop, range(10), start=full - 3.0)
    again = write(tmp_path / "1.ts", "libx264", gop, range(10, 20))
    check(made.joined(tmp_path / "b.ts", [ends, again]), even=False)
    check(made.joined(tmp_path / "c.ts", [again, ends]), [*range(10, 20), *range(10)], even=False)


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
@pytest.mark.parametrize("gop", ["no-b", "b"])
def test_times_below_zero(tmp_path, ending, gop):
    path = write(
        tmp_path / f"a.{ending}",
        "libx264",
        gop,
        start=-0.2,
        container_options={"avoid_negative_ts": "disabled"},
    )
    hidden = 5 if ending == "mp4" else 0
    check(path, range(hidden, COUNT))


def test_a_still_picture_with_sound_keeps_its_time(tmp_path):
    """Half a minute without a new picture, in which the sound goes on, is no leap."""
    path = tmp_path / "a.ts"
    base = Fraction(1, 90000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = base
        noise = container.add_stream("aac", rate=48000)
        noise.codec_context.layout = "mono"
        for i in range(32 * 25):
            if i < 10 or i >= 31 * 25:
                image = av.VideoFrame.from_ndarray(made.picture(i), format="rgb24")
                image.pts, image.time_base = i * 3600, base
                container.mux(stream.encode(image))
            container.mux(noise.encode(made._tone(i, Fraction(i, 25))))
        container.mux(stream.encode())
        container.mux(noise.encode())
    times = frame_times(path)
    assert not times.notes and len(times) == 35
    assert float((times[10] - times[9]) * base) == pytest.approx(31 - 9 / 25)


JOINS = {
    "ts": ("libx264", "aac"),
    "vob": ("mpeg2video", "mp2"),
    "mpg": ("mpeg2video", "mp2"),
}


def result(path: Path, ending: str) -> Path:
    info, times = probe(path), frame_times(path)
    params = EncodeParams(container=ending, crf=8).for_source(info)
    target = path.with_name(f"out{ending}")
    part = encode_part(path.with_name("part.mkv"), VideoReader(path, times=times), params, (48, 32))
    join([part], target, times, path, params)
    return target


def in_step(target: Path, frames) -> None:
    """Beeps are where their pictures are."""
    with av.open(str(target)) as container:
        at = [float(f.pts * f.time_base) for f in container.decode(video=0)]
    wanted = [at[i] for i, number in enumerate(frames) if number % made.EVERY == 0]
    found = made.beeps(target)
    assert len(found) >= len(wanted) - 1
    for time in found:
        assert min(abs(time - w) for w in wanted) < 0.03


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("kind", JOINS)
def test_sound_of_joined_files_stays_in_step(tmp_path, kind, ending):
    codec, tone = JOINS[kind]
    parts = [range(0, 18), range(18, 43), range(43, 60)]
    files = [
        write(tmp_path / f"{i}.{kind}", codec, "no-b", part, sound=tone)
        for i, part in enumerate(parts)
    ]
    target = result(made.joined(tmp_path / f"joined.{kind}", files), ending)
    in_step(target, range(60))
    with av.open(str(target)) as container:
        sound = container.streams.audio[0]
        seconds = float(sound.duration * sound.time_base) if sound.duration else 2.4
    assert seconds == pytest.approx(2.4, abs=0.12)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_sound_after_a_leap_stays_in_step(tmp_path, ending):
    path = write(tmp_path / "a.ts", "libx264", "b", range(50), jump=(25, 3600), sound="aac")
    in_step(result(path, ending), range(50))


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_lost_packets_of_sound(tmp_path, ending):
    path = write(tmp_path / "a.ts", "libx264", "no-b", range(60), sound="aac")
    made.without(path, lambda own: own[4::9], made.SOUND)
    target = result(path, ending)
    with av.open(str(target)) as container:
        assert len([p for p in container.demux(video=0) if p.size]) == 60
        assert container.streams.audio


def test_damage_is_counted_and_said(tmp_path, caplog):
    path = write(tmp_path / "a.ts", "libx264", "intra")
    starts = made.begins(path)
    made.without(path, lambda own: [i for i in own if i > starts[7] and i not in starts][:1])
    with caplog.at_level(logging.WARNING):
        times = frame_times(path)
    assert len(times) == COUNT and len(times.wrong) == 1
    assert times.notes == ["1 frames are damaged in the file and are shown with errors."]
    assert times.notes[0] in caplog.text


def test_order_decides_where_times_contradict_it():
    step = 10
    assert best_times([0, 10, 20, 30], [None] * 4, step) == [0, 10, 20, 30]
    assert best_times([0, 7, 25, 26], [None] * 4, step) == [0, 7, 25, 26], "any rate is believed"
    assert best_times([10, 40, 30, 50, 20], [0, 30, 20, 40, 10], step) == [0, 10, 20, 30, 40]
    assert best_times([None] * 3, [None] * 3, step) == [0, 10, 20]
    assert best_times([None, 50, None, 70, None], [None] * 5, step) == [40, 50, 60, 70, 80]
    # One is missing early, one is there twice: those between move up.
    assert best_times([0, 10, 30, 40, 40, 50], [None] * 6, step) == [0, 10, 20, 30, 40, 50]
    assert best_times([0, 10, 20, 20, 30], [None] * 5, step) == [0, 10, 20, 30, 40]
    # A gap stays one.
    assert best_times([0, None, 500, 510], [None] * 4, step) == [0, 10, 500, 510]


def test_lost_pictures_have_the_places_left_for_them():
    assert places_of_lost([0, 10, 30, 40], [20], 10) == [20]
    assert places_of_lost([0, 10, 20, 30], [15, -5], 10) == [], "second fields, and what precedes"
    assert places_of_lost([0, 40], [30, 10, 20], 10) == [10, 20, 30]


def packet(time: float, length: float = 0.02) -> av.Packet:
    made_packet = av.Packet(b"x")
    made_packet.dts = made_packet.pts = round(time * 1000)
    made_packet.duration = round(length * 1000)
    return made_packet


def track(times, ahead: float) -> Track:
    found = Track(Fraction(1, 1000), ahead)
    for place, time in times:
        found.add(packet(time), place)
    found.mark_strays()
    return found


def test_one_wrong_time_is_no_joint():
    video = track([(i, 900.0 if i == 5 else i * 0.02) for i in range(10)], AHEAD_BROKEN)
    segments, of_run = find_segments(video, [])
    assert len(segments) == 1 and of_run == [0, -1, 0]


def test_sound_belongs_to_the_picture_it_began_with():
    video = track([(i, (i % 50) * 0.04) for i in range(0, 100, 2)], AHEAD_BROKEN)
    sound = track([(i, (i % 50) * 0.04) for i in range(1, 100, 2)], AHEAD_SOUND)
    segments, _ = find_segments(video, [sound])
    assert len(segments) == 2
    segments[1].shift, segments[1].begin = Fraction(2), Fraction(2)
    shifts = shifts_of(sound, segments, ordered=True)
    assert [(s.first, s.seconds) for s in shifts] == [(0, 0), (25, 2)]
