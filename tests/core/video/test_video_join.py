import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from video_files import plain_times, seconds_shown, sound_of, write_clip

from uav_core import InputError
from uav_core.errors import DiskFullError
from uav_core.video import (
    CODECS,
    BadPartError,
    EncodeParams,
    EncodeParamsError,
    VideoReader,
    available_codecs,
    encode_part,
    frame_times,
    join,
    probe,
)
from uav_core.video import join as joined
from uav_core.video.reading.side_data import Orientation
from uav_core.video.reading.times import FrameTimes
from uav_core.video.writing.join import plan_clock

SECOND = 12800
VFR = [0, 512, 600, 2000, 2001, 5000, 5512, 9000, 9100, 9999, 12800, 20000]


def upscaled(path: Path, start: int, stop: int, factor: int = 2):
    """The frames of a source at ``factor`` times their size."""
    for frame in VideoReader(path, start, stop):
        yield frame.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def parts_of(source: Path, params: EncodeParams, length: int = 5, stop: int | None = None):
    info, count = probe(source), stop or len(frame_times(source))
    size = (info.width * 2, info.height * 2)
    return [
        encode_part(
            source.parent / f"part{i}.mkv",
            upscaled(source, i, min(i + length, count)),
            params,
            size,
        )
        for i in range(0, count, length)
    ]


def run(source: Path, target: Path, stop: int | None = None, **choices) -> Path:
    choices.setdefault("container", target.suffix)
    params = EncodeParams(**choices).for_source(probe(source))
    join(parts_of(source, params, stop=stop), target, frame_times(source), source, params)
    return target


CLIPS = {
    "cfr": {},
    "vfr": {"times": VFR},
    "bframes": {"options": {"bf": "3", "x264-params": "b-adapt=0"}},
    "late": {"times": [t + 3 * SECOND for t in VFR]},
    "ten bits": {"pixel_format": "yuv420p10le"},
    "turned": {"rotation": -90},
    "full range": {"pixel_format": "yuvj420p", "codec": "mjpeg", "tags": {"color_range": 2}},
    "odd": {"size": (47, 33), "codec": "ffv1"},
    "one frame": {"count": 1},
    "ntsc": {"base": Fraction(1001, 30000), "times": list(range(12))},
}


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("kind", CLIPS)
def test_frames_and_times_are_those_of_the_source(tmp_path, kind, ending):
    name = "source.mkv" if kind in ("odd", "full range") else "source.mp4"
    source = write_clip(tmp_path / name, **CLIPS[kind])
    target = run(source, tmp_path / f"out{ending}", crf=1)
    expected = seconds_shown(source)
    got = seconds_shown(target)
    tolerance = Fraction(1, 1000) if ending == ".mkv" else 0
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert abs(a - (b - expected[0])) <= tolerance
    info, before = probe(target), probe(source)
    assert (info.width, info.height) == (before.width * 2, before.height * 2)
    assert info.orientation == Orientation() and info.color.range == "limited"
    assert info.bit_depth == before.bit_depth
    if kind == "cfr":
        assert info.rate == before.rate == 25
    for a, b in zip(VideoReader(target), upscaled(source, 0, len(got)), strict=True):
        assert (a - b).abs().mean() < 0.05


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_goes_into_its_containers(tmp_path, codec):
    if codec not in available_codecs():
        pytest.skip(f"this build of PyAV cannot encode {codec}")
    source = write_clip(tmp_path / "source.mp4", times=VFR, audio=(("aac", 0, 1.5),))
    for ending in CODECS[codec].containers:
        target = run(source, tmp_path / f"out{ending}", codec=codec)
        assert len(list(VideoReader(target))) == 12
        shown = seconds_shown(target)
        for a, t in zip(shown, VFR, strict=True):
            assert abs((a - shown[0]) - Fraction(t, SECOND)) <= Fraction(ending == ".mkv", 1000)


def test_decoding_times_increase_and_precede_showing(tmp_path):
    source = write_clip(tmp_path / "source.mp4", times=VFR)
    target = run(source, tmp_path / "out.mp4")
    with av.open(str(target)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    assert packets[0].is_keyframe
    dts = [p.dts for p in packets]
    assert dts == sorted(set(dts))
    assert all(p.dts <= p.pts for p in packets)
    assert any(p.dts < p.pts for p in packets)


def test_every_range_of_the_result_can_be_reached(tmp_path):
    source = write_clip(tmp_path / "source.mp4", times=VFR)
    target = run(source, tmp_path / "out.mp4")
    whole = list(VideoReader(target))
    for i in range(12):
        assert torch.equal(next(iter(VideoReader(target, i, i + 1))), whole[i])


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("start", [0, 0.3])
def test_audio_keeps_its_codec_offset_and_length(tmp_path, ending, start):
    source = write_clip(
        tmp_path / "source.mp4", 25, audio=(("aac", start, 0.5), ("libmp3lame", start, 0.4))
    )
    target = run(source, tmp_path / f"out{ending}")
    picture = seconds_shown(target)[0] - seconds_shown(source)[0]
    for number, codec in enumerate(("aac", "mp3")):
        before, after = sound_of(source, number), sound_of(target, number)
        assert after[0] == codec
        # Matroska counts the encoder's silent lead-in as sound.
        lead = 0.025 if ending == ".mkv" else 0.002
        assert float(after[1] - picture) == pytest.approx(float(before[1]), abs=lead)
        assert after[2] == pytest.approx(before[2], abs=0.03)


def test_audio_before_the_picture_stays_before(tmp_path):
    source = write_clip(
        tmp_path / "source.mkv",
        base=Fraction(1, 1000),
        times=[500 + 40 * i for i in range(12)],
        audio=(("flac", 0.1, 0.8),),
    )
    for ending in (".mp4", ".mkv"):
        target = run(source, tmp_path / f"out{ending}")
        gap = seconds_shown(target)[0] - sound_of(target)[1]
        assert float(gap) == pytest.approx(0.4, abs=0.002)


@pytest.mark.parametrize(
    ("codec", "name", "ending", "expected"),
    [
        ("pcm_s16le", "source.mkv", ".mp4", "aac"),
        ("pcm_s16le", "source.mkv", ".mov", "pcm_s16le"),
        ("pcm_s16le", "source.mkv", ".mkv", "pcm_s16le"),
        ("flac", "source.mkv", ".mov", "aac"),
        ("libopus", "source.mkv", ".mp4", "opus"),
        ("adpcm_ima_qt", "source.mov", ".mkv", "flac"),
        ("aac", "source.ts", ".mp4", "aac"),
        ("mp2", "source.ts", ".mp4", "aac"),
    ],
)
def test_audio_is_encoded_only_where_it_must_be(tmp_path, codec, name, ending, expected):
    source = write_clip(tmp_path / name, 25, audio=((codec, 0, 0.9),))
    after = sound_of(run(source, tmp_path / f"out{ending}"))
    before = sound_of(source)
    assert after[0] == expected
    assert after[2] == pytest.approx(before[2], abs=0.05)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_an_unfinished_job_is_cut_to_its_length(tmp_path, ending):
    source = write_clip(tmp_path / "source.mp4", 50, audio=(("aac", 0, 2),))
    target = run(source, tmp_path / f"out{ending}", stop=20)
    assert len(list(VideoReader(target))) == 20
    assert sound_of(target)[2] == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_a_range_of_the_source_takes_its_piece_of_audio(tmp_path, ending):
    source = write_clip(tmp_path / "source.mp4", 50, audio=(("aac", 0, 2),))
    params = EncodeParams(container=ending).for_source(probe(source))
    part = encode_part(tmp_path / "part.mkv", upscaled(source, 10, 30), params, (96, 64))
    target = tmp_path / f"out{ending}"
    joined([part], target, frame_times(source), source, params, first=10)
    assert len(seconds_shown(target)) == 20
    _, start, length = sound_of(target)
    assert float(start - seconds_shown(target)[0]) == pytest.approx(0, abs=0.03)
    assert length == pytest.approx(0.8, abs=0.06)


def test_tags_and_languages_are_kept(tmp_path):
    source = write_clip(tmp_path / "source.mp4", metadata={"title": "Seaside"}, rotation=90)
    for ending in (".mp4", ".mkv"):
        with av.open(str(run(source, tmp_path / f"out{ending}"))) as container:
            assert container.metadata["title"] == "Seaside"
    source.write_bytes(source.read_bytes().replace(b"Seaside", b"K\xfcste  "))
    for ending in (".mp4", ".mkv"):
        with av.open(str(run(source, tmp_path / f"other{ending}"))) as container:
            assert container.metadata["title"] == "K\ufffdste  "


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_the_same_parts_give_the_same_bytes(tmp_path, ending):
    source = write_clip(tmp_path / "source.mp4", audio=(("aac", 0, 0.5),))
    first = run(source, tmp_path / f"a{ending}").read_bytes()
    assert run(source, tmp_path / f"b{ending}").read_bytes() == first


def test_a_cancel_leaves_nothing(tmp_path):
    source = write_clip(tmp_path / "source.mp4")
    params = EncodeParams().for_source(probe(source))
    parts, times, target = parts_of(source, params), frame_times(source), tmp_path / "out.mp4"
    join(parts, target, times, source, params)
    before = target.read_bytes()

    class Cancelled(Exception):
        pass

    def stop():
        raise Cancelled

    with pytest.raises(Cancelled):
        join(parts, target, times, source, params, check_cancelled=stop)
    assert target.read_bytes() == before and not list(tmp_path.glob("*.tmp"))


def test_parts_that_do_not_belong_are_named(tmp_path):
    source = write_clip(tmp_path / "source.mp4")
    params = EncodeParams().for_source(probe(source))
    parts, times, target = parts_of(source, params), frame_times(source), tmp_path / "out.mp4"
    with pytest.raises(InputError, match="12"):
        join(parts * 2, target, times, source, params)
    with pytest.raises(InputError, match="0 parts"):
        join([], target, times, source, params)
    with pytest.raises(EncodeParamsError, match="extension"):
        join(parts, tmp_path / "out.mkv", times, source, params)
    other = encode_part(
        tmp_path / "other.mkv", upscaled(source, 5, 10), EncodeParams(preset="ultrafast"), (96, 64)
    )
    with pytest.raises(BadPartError, match="other settings"):
        join([parts[0], other, parts[2]], target, times, source, params)
    wrong = replace(parts[1], frames=7)
    with pytest.raises(BadPartError, match="readable frames"):
        join([parts[0], wrong], target, times, source, params)
    os.truncate(parts[1].path, 10)
    with pytest.raises(BadPartError, match="cannot be read"):
        join(parts, target, times, source, params)
    huge = replace(parts[0], bytes=10**18)
    with pytest.raises(DiskFullError, match="needs"):
        join([huge], target, times, source, params)
    assert not target.exists()


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_pictures_that_stand_for_more_units_than_32_bits_count(tmp_path, ending):
    """Three seconds each in nanoseconds, in which NUT and others may count."""
    source = write_clip(tmp_path / "source.mkv", count=4)
    params = EncodeParams(container=ending).for_source(probe(source))
    times = frame_times(source)
    base = Fraction(1, 10**9)
    slow = FrameTimes([i * 3 * 10**9 for i in range(4)], times.numbers, time_base=base)
    join(parts_of(source, params), tmp_path / f"out{ending}", slow, source, params)
    assert seconds_shown(tmp_path / f"out{ending}") == [0, 3, 6, 9]


def held(path: Path, times: list[int], last: int, bframes: int = 0) -> Path:
    """A clip with these times, whose last picture is shown for ``last`` units."""
    options = {"x264-params": f"bframes={bframes}:b-adapt=0"}
    plain = write_clip(path.with_name("plain.mp4"), times=times, options=options)
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.duration = last if packet.pts == times[-1] else packet.duration
                packet.stream = stream
                target.mux(packet)
    return path


@pytest.mark.parametrize("last", [3 * SECOND, 200])
def test_the_last_picture_is_shown_as_long_as_in_the_source(tmp_path, last):
    source = held(tmp_path / "source.mp4", [0, 512, 1024], last)
    ends = [1024 + last, 1024 + 512]
    assert frame_times(source).end == ends[0]
    for stop, end in zip((None, 2), (ends[0], 1024), strict=True):
        with av.open(str(run(source, tmp_path / f"{stop}.mp4", stop))) as container:
            assert container.duration == pytest.approx(end / SECOND * av.time_base, abs=1000)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.parametrize("last", [2 * SECOND, 30 * SECOND])
def test_a_slow_clip_is_not_called_incomplete(tmp_path, last, bframes, ending):
    """Of two seconds a picture, as time lapses and shows of slides have."""
    source = held(tmp_path / f"source{ending}", [i * 2 * SECOND for i in range(9)], last, bframes)
    times = frame_times(source)
    assert not times.notes and [round(t * times.time_base) for t in times] == [*range(0, 18, 2)]


def test_clock_keeps_times_and_their_order():
    clock = plan_clock([5, 6, 9, 9, 8], Fraction(1, 10), Fraction(1, 2), Fraction(5), frames=5)
    assert clock.shown == (0, 1, 4, 5, 6, 7)
    clock = plan_clock([0, 4, 8, 20], Fraction(1, 8), Fraction(0), Fraction(2), frames=3, reorder=2)
    assert [clock.stamps(*a) for a in ((0, 0), (1, 2), (2, 1))] == [
        (0, -8, 4),
        (8, -4, 12),
        (4, 0, 4),
    ]
    alone = plan_clock([7], Fraction(1, 8), Fraction(0), Fraction(2), frames=1)
    assert alone.shown == (7, 11)
    alone = plan_clock([7], Fraction(1, 8), Fraction(0), Fraction(2), frames=1, end=9)
    assert alone.shown == (7, 9)


def test_times_after_joining_are_read_by_demuxing_alone(tmp_path):
    target = run(write_clip(tmp_path / "source.mp4", times=VFR), tmp_path / "out.mp4")
    assert frame_times(target) == plain_times(target)


def changing_sound(path: Path, *kinds: tuple[str, int]) -> Path:
    """A clip with a second of MP2 of each (layout, rate), as some broadcasts have it."""
    picture = write_clip(path.with_suffix(".mkv"), 25 * len(kinds))
    with av.open(str(picture)) as source, av.open(str(path), "w", format="mpegts") as container:
        shown = container.add_stream_from_template(source.streams.video[0], opaque=True)
        sound = container.add_stream("mp2", rate=kinds[0][1], layout=kinds[0][0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = shown
                container.mux(packet)
        for second, (layout, rate) in enumerate(kinds):
            encoder = av.AudioCodecContext.create("mp2", "w")
            encoder.layout, encoder.sample_rate, encoder.format = layout, rate, "s16"
            encoder.time_base = Fraction(1, rate)
            frame = av.AudioFrame("s16", layout, rate)
            wave = np.sin(np.arange(rate) * 440 * 2 * np.pi / rate) * 2**14
            channels = len(frame.layout.channels)
            frame.planes[0].update(np.repeat(wave.astype(np.int16), channels).tobytes())
            frame.sample_rate, frame.pts, frame.time_base = rate, second * rate, encoder.time_base
            for packet in [*encoder.encode(frame), *encoder.encode(None)]:
                packet.stream = sound
                container.mux(packet)
    return path


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    "kinds",
    [
        (("stereo", 48000), ("mono", 48000), ("stereo", 48000)),
        (("stereo", 48000), ("stereo", 44100)),
        (("mono", 32000), ("stereo", 48000)),
    ],
)
def test_sound_may_change_midway(tmp_path, kinds, ending):
    source = changing_sound(tmp_path / "a.ts", *kinds)
    _, start, length = sound_of(run(source, tmp_path / f"out{ending}"))
    if ending == ".mp4":  # Matroska keeps MP2 as it is
        assert start == pytest.approx(0, abs=0.1)
        assert length == pytest.approx(len(kinds), abs=0.1)
