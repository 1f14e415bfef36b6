"""Subtitles and chapters of a source in the joined file."""

import logging
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.container import OutputContainer
from av.subtitles.codeccontext import SubtitleCodecContext
from video_files import write_clip

from uav_core.video import EncodeParams, VideoReader, encode_part, frame_times, join, probe

SRT = """1
00:00:00,100 --> 00:00:00,300
<i>Hello</i>

2
00:00:00,800 --> 00:00:01,200
Grüße
line two
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.10,0:00:00.30,Default,,0,0,0,,{\\i1}Hello{\\i0}
Dialogue: 0,0:00:00.80,0:00:01.20,Default,,0,0,0,,Grüße\\Nline two
"""
CHAPTERS = [(0, 500, "One"), (500, 1300, "Two"), (1300, 2000, "Three")]
ENDINGS = [".mp4", ".mkv", ".mov"]

needs_chapters = pytest.mark.skipif(
    not hasattr(OutputContainer, "set_chapters"), reason="this PyAV cannot write chapters"
)


ENCODES = hasattr(SubtitleCodecContext, "encode_subtitle")


def needs_encoder(ending: str) -> None:
    """Skip the test where the texts would be encoded for the file format, and PyAV cannot."""
    if not ENCODES and ending != ".mkv":
        pytest.skip("this PyAV cannot encode subtitles")


@pytest.fixture(params=["srt", "ass"])
def source(request, tmp_path) -> Path:
    """Two seconds with sound, two texts in Danish, and three chapters."""
    text = tmp_path / f"text.{request.param}"
    text.write_text({"srt": SRT, "ass": ASS}[request.param])
    return with_text(tmp_path, text)


def with_text(folder: Path, text: Path, **clip: Any) -> Path:
    clip = clip or {"audio": (("flac", 0, 2),)}
    picture = write_clip(folder / "picture.mkv", 50, **clip)
    path = folder / "source.mkv"
    with av.open(str(path), "w") as out, av.open(str(picture)) as a, av.open(str(text)) as b:
        streams = {s: out.add_stream_from_template(s, opaque=True) for s in a.streams}
        (written,) = b.streams.subtitles
        target = out.add_stream_from_template(written)
        target.metadata["language"] = "dan"
        if hasattr(out, "set_chapters"):
            out.set_chapters(
                [
                    {
                        "id": i,
                        "start": start,
                        "end": stop,
                        "time_base": Fraction(1, 1000),
                        "metadata": {"title": title},
                    }
                    for i, (start, stop, title) in enumerate(CHAPTERS, start=1)
                ]
            )
        for packet in [p for p in b.demux(written) if p.size]:
            packet.stream = target
            out.mux(packet)
        for packet in a.demux():
            if packet.size:
                packet.stream = streams[packet.stream]
                out.mux(packet)
    return path


def joined(source: Path, target: Path, first: int = 0, stop: int = 50) -> Path:
    params = EncodeParams(container=target.suffix).for_source(probe(source))
    frames = VideoReader(source, first, stop)
    part = encode_part(target.parent / "part.mkv", frames, params, (48, 32))
    join([part], target, frame_times(source), source, params, first=first)
    return target


def texts(path: Path) -> tuple[str, list[tuple[float, float, str]]]:
    """(language, (start, stop, text) of each) as a player reads them."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.subtitles
        found = []
        for packet in container.demux(stream):
            shown = decoded(stream.codec_context, packet) if packet.size else []
            lines = [r.ass.decode().split(",", 8)[-1] for r in shown]
            if any(lines):
                start = float(packet.pts * packet.time_base)
                found.append((start, start + float(packet.duration * packet.time_base), lines[0]))
        return stream.metadata.get("language", ""), found


def decoded(context: Any, packet: av.Packet) -> list[Any]:
    if hasattr(context, "decode2"):
        return list(context.decode2(packet) or ())
    return [part for whole in context.decode(packet) for part in whole]


def chapters(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        return [
            (
                float(c["start"] * c["time_base"]),
                float(c["end"] * c["time_base"]),
                c["metadata"]["title"],
            )
            for c in container.chapters()
        ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_texts_and_their_times_are_kept(source, tmp_path, ending):
    needs_encoder(ending)
    language, found = texts(joined(source, tmp_path / f"out{ending}"))
    assert language == "dan" and len(found) == 2
    for (start, stop, text), (first, last, said) in zip(
        found, [(0.1, 0.3, "Hello"), (0.8, 1.2, r"Grüße\Nline two")], strict=True
    ):
        assert (start, stop) == pytest.approx((first, last), abs=0.002)
        assert said in text
    assert r"{\i1}" in found[0][2], "what is written slanted stays so"


def srt(folder: Path, *lines: tuple[int, int, str]) -> Path:
    """A file of texts; times in milliseconds."""
    blocks = (
        f"{n}\n00:00:0{a // 1000},{a % 1000:03} --> 00:00:0{b // 1000},{b % 1000:03}\n{text}\n"
        for n, (a, b, text) in enumerate(lines, start=1)
    )
    path = folder / "text.srt"
    path.write_text("\n".join(blocks))
    return path


@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_texts_shown_at_once_stand_together_in_mp4(tmp_path, ending):
    needs_encoder(ending)
    text = srt(tmp_path, (0, 900, "Sign"), (200, 400, "one"), (400, 1200, "two"), (1300, 1500, "x"))
    source = with_text(tmp_path, text)
    assert texts(joined(source, tmp_path / f"out{ending}"))[1] == [
        (pytest.approx(start, abs=0.002), pytest.approx(stop, abs=0.002), said)
        for start, stop, said in (
            (0.0, 0.2, "Sign"),
            (0.2, 0.4, r"Sign\None"),
            (0.4, 0.9, r"Sign\Ntwo"),
            (0.9, 1.2, "two"),
            (1.3, 1.5, "x"),
        )
    ]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_text_before_the_first_picture_moves_nothing(tmp_path, ending):
    needs_encoder(ending)
    text = srt(tmp_path, (0, 300, "gone"), (300, 700, "cut"), (800, 900, "whole"))
    source = with_text(tmp_path, text, times=[12800 * 2 // 5 + 512 * i for i in range(50)])
    target = joined(source, tmp_path / f"out{ending}")
    assert float(frame_times(target)[0]) == 0
    _, found = texts(target)
    wanted = [(0.0, 0.3, "cut"), (0.4, 0.5, "whole")]
    for one, other in zip(found, wanted, strict=True):
        assert one[:2] == pytest.approx(other[:2], abs=0.002) and one[2] == other[2]
    if hasattr(OutputContainer, "set_chapters"):
        assert chapters(target)[0][:2] == pytest.approx((0, 0.1), abs=0.01)


def test_what_mp4_holds_goes_into_matroska(source, tmp_path):
    needs_encoder(".mp4")
    between = joined(source, tmp_path / "between.mp4")
    for ending in ENDINGS:
        after = texts(joined(between, tmp_path / f"out{ending}"))[1]
        assert r"{\i1}Hello" in after[0][2] and r"Grüße\Nline two" in after[1][2]
        assert after[1][:2] == pytest.approx((0.8, 1.2), abs=0.01)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_range_takes_its_piece_of_the_texts(source, tmp_path, ending):
    needs_encoder(ending)
    _, found = texts(joined(source, tmp_path / f"out{ending}", first=5, stop=25))  # 0.2 to 1 s
    assert found[0][:2] == pytest.approx((0.0, 0.1), abs=0.01)
    assert found[1][:2] == pytest.approx((0.6, 0.8), abs=0.01)


@needs_chapters
@pytest.mark.parametrize("ending", ENDINGS)
def test_chapters_are_kept_and_cut(source, tmp_path, ending):
    found = chapters(joined(source, tmp_path / f"all{ending}"))
    wanted = [(start / 1000, stop / 1000, title) for start, stop, title in CHAPTERS]
    for one, other in zip(found, wanted, strict=True):
        assert one[:2] == pytest.approx(other[:2], abs=0.03) and one[2] == other[2]
    found = chapters(joined(source, tmp_path / f"piece{ending}", first=5, stop=25))
    assert [title for _, _, title in found] == ["One", "Two"]
    assert found[0][:2] == pytest.approx((0.0, 0.3), abs=0.03)
    assert found[1][:2] == pytest.approx((0.3, 0.8), abs=0.03)


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_source_gives_the_same_bytes(source, tmp_path, ending):
    first = joined(source, tmp_path / f"a{ending}").read_bytes()
    assert joined(source, tmp_path / f"b{ending}").read_bytes() == first


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("source", ["srt"], indirect=True)
def test_tags_that_are_not_utf8_become_readable(source, tmp_path, ending):
    """Every other program reads the file; PyAV before 19 refuses one that is not UTF-8."""
    source.write_bytes(source.read_bytes().replace(b"dan", b"d\xe4n").replace(b"Two", b"Tw\xf6"))
    target = joined(source, tmp_path / f"out{ending}")
    if ending == ".mkv":  # the others know languages by three letters only
        assert texts(target)[0] == "d\ufffdn"
    if hasattr(OutputContainer, "set_chapters"):
        assert [title for _, _, title in chapters(target)] == ["One", "Tw\ufffd", "Three"]


@pytest.mark.skipif(ENCODES, reason="this PyAV can encode subtitles")
def test_what_cannot_be_encoded_is_left_out_and_said(source, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        target = joined(source, tmp_path / "out.mp4")
    assert "this PyAV cannot convert them for .mp4" in caplog.text
    with av.open(str(target)) as container:
        assert not container.streams.subtitles


def test_subtitles_that_are_pictures_are_left_out_and_said(tmp_path, caplog):
    picture, path = write_clip(tmp_path / "picture.mkv", 5), tmp_path / "source.mkv"
    with av.open(str(path), "w") as out, av.open(str(picture)) as a:
        target = out.add_stream_from_template(a.streams.video[0], opaque=True)
        out.add_stream("dvbsub")
        for packet in a.demux(a.streams.video[0]):
            if packet.size:
                packet.stream = target
                out.mux(packet)
    with caplog.at_level(logging.WARNING):
        target = joined(path, tmp_path / "out.mp4", stop=5)
    assert "dvb_subtitle are not kept: they are pictures" in caplog.text
    with av.open(str(target)) as container:
        assert not container.streams.subtitles
