import os
import resource
import signal
import subprocess
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from video_files import write_clip

from uav_core import InputError
from uav_core.errors import DiskFullError, FileError
from uav_core.files import hash_file
from uav_core.video import (
    CODECS,
    Color,
    EncodeParams,
    EncodeParamsError,
    VideoReader,
    available_codecs,
    encode_part,
    probe,
)
from uav_core.video.color import output_color

SIZE = (96, 64)


def frames(count: int = 6, size: tuple[int, int] = SIZE, seed: int = 0) -> list[torch.Tensor]:
    """Smooth pictures that move."""
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 3, size[1], size[0], generator=rng)
    smooth = torch.nn.functional.avg_pool2d(noise, 9, 1, 4)[0] * 4 - 2
    return [smooth.roll(3 * i, 2).clamp(-1, 1) for i in range(count)]


@pytest.fixture(params=CODECS)
def codec(request) -> str:
    if request.param not in available_codecs():
        pytest.skip(f"this build of PyAV cannot encode {request.param}")
    return request.param


def params_of(codec: str, **choices) -> EncodeParams:
    return EncodeParams(codec, CODECS[codec].containers[0], **choices)


def psnr(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    error = (torch.stack(a) - torch.stack(b)).div(2).square().mean()
    return float(-10 * error.log10())


def test_a_part_plays_alone(tmp_path, codec):
    given = frames(20)
    params = params_of(codec, rate=Fraction(30000, 1001))
    part = encode_part(tmp_path / "part.mkv", given, params, SIZE)
    assert part.frames == 20 and part.bytes == os.path.getsize(part.path)
    assert os.listdir(tmp_path) == ["part.mkv"]
    assert hash_file(part.path) == part.blake2b
    assert psnr(list(VideoReader(part.path)), given) > 28
    with av.open(part.path) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        assert packets[0].is_keyframe and packets[0].pts == 0
        order = [round(p.pts * p.time_base * params.part_rate) for p in packets]
    assert sorted(order) == list(range(20))
    assert part.reorder == max(i - n for i, n in enumerate(order))


def test_the_same_frames_give_the_same_bytes(tmp_path, codec):
    first = encode_part(tmp_path / "a.mkv", frames(), params_of(codec), SIZE)
    again = encode_part(tmp_path / "b.mkv", frames(), params_of(codec), SIZE)
    other = encode_part(tmp_path / "c.mkv", frames(seed=1), params_of(codec), SIZE)
    assert first.blake2b == again.blake2b != other.blake2b


def test_what_lies_in_memory_does_not_change_the_bytes(tmp_path, sample_clip):
    """As it did with x264's AVX-512 code, for small pictures in short parts."""
    pictures = list(VideoReader(sample_clip.with_name("sample_x4.mp4"), 0, 3))
    given = [picture[:, :128, :192].contiguous() for picture in pictures]
    hashes, kept = set(), []
    for i in range(30):
        kept += [np.random.default_rng(i).integers(0, 255, 50_000 + 9_000 * (i % 7), np.uint8)]
        kept += list(VideoReader(sample_clip, 0, 3))
        part = encode_part(tmp_path / "a.mkv", given, EncodeParams(), (192, 128))
        hashes.add(part.blake2b)
        del kept[i % len(kept)]
    assert len(hashes) == 1


def test_b_frames_are_reordered(tmp_path):
    """Otherwise the tests of joining would prove little."""
    assert encode_part(tmp_path / "a.mkv", frames(20), EncodeParams(), SIZE).reorder > 0


def test_one_frame(tmp_path, codec):
    part = encode_part(tmp_path / "a.mkv", frames(1), params_of(codec), SIZE)
    assert part.frames == 1 and len(list(VideoReader(part.path))) == 1


def test_lossless_is_lossless(tmp_path):
    if "ffv1" not in available_codecs():
        pytest.skip("no FFV1")
    given = [((f + 1) * 127.5).round() / 127.5 - 1 for f in frames()]
    part = encode_part(tmp_path / "a.mkv", given, params_of("ffv1"), SIZE)
    torch.testing.assert_close(torch.stack(list(VideoReader(part.path))), torch.stack(given))


@pytest.mark.parametrize(("bits", "least", "most"), [(8, 200, 256), (10, 800, 1024)])
def test_ten_bits_have_more_levels(tmp_path, bits, least, most):
    ramp = torch.linspace(-1, 1, 2048).expand(3, 32, 2048)
    params = replace(EncodeParams(crf=1), bit_depth=bits)
    part = encode_part(tmp_path / "a.mkv", [ramp], params, (2048, 32))
    assert probe(part.path).bit_depth == bits
    (frame,) = VideoReader(part.path)
    assert least < frame[1, 16].unique().numel() <= most
    assert (frame - ramp).abs().max() < 2 * 2 / 2**bits * 2


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuv444p10le"])
@pytest.mark.parametrize(
    "color",
    [
        Color(),
        Color("full"),
        Color("limited", "bt2020nc", "bt2020", "smpte2084"),
    ],
)
def test_tags_tell_how_the_picture_was_converted(tmp_path, pixel_format, color):
    """A flat colour comes back through the tags, so that both ends agree."""
    flat = torch.tensor([0.8, -0.3, -0.9]).view(3, 1, 1).expand(3, 64, 96)
    params = EncodeParams(crf=0 if "10" not in pixel_format else 1, pixel_format=pixel_format)
    part = encode_part(tmp_path / "a.mkv", [flat], replace(params, color=color), SIZE)
    assert probe(part.path).color == color
    (frame,) = VideoReader(part.path)
    assert (frame - flat).abs().max() < 2.5 / 127.5
    with av.open(part.path) as container:
        plane = next(container.decode(video=0)).planes[0]
    y = np.frombuffer(plane, np.uint16 if "10" in pixel_format else np.uint8)[0]
    kr, kb = (0.2627, 0.0593) if color.matrix == "bt2020nc" else (0.2126, 0.0722)
    r, g, b = ((flat[:, 0, 0] + 1) / 2).tolist()
    luma = kr * r + kb * b + (1 - kr - kb) * g
    luma = luma * 255 if color.range == "full" else 16 + 219 * luma
    value = float(y) / (4 if "10" in pixel_format else 1)
    assert abs(value - luma) < 1.1


def test_output_colour_follows_the_source():
    full = Color("full", "smpte170m", "smpte170m", "unknown")
    assert output_color(full) == Color("limited", "bt709", "smpte170m", "bt709")
    assert output_color(full, keep_range=True).range == "full"
    wide = Color("limited", "bt2020nc", "bt2020", "arib-std-b67")
    assert output_color(wide) == wide


def test_choices_follow_the_source(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pixel_format="yuv420p10le", aspect=Fraction(4, 3))
    params = EncodeParams().for_source(probe(path))
    assert params.encoded_format == "yuv420p10le"
    assert params.sample_aspect == Fraction(4, 3) and params.rate == 25
    part = encode_part(tmp_path / "b.mkv", frames(), params, SIZE)
    assert probe(part.path).sample_aspect == Fraction(4, 3)


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        ({"codec": "theora"}, "h264"),
        ({"codec": "prores"}, ".mov"),
        ({"codec": "ffv1", "container": ".mp4"}, ".mkv"),
        ({"crf": 52}, "51"),
        ({"crf": -1}, "0"),
        ({"preset": "fastest"}, "veryfast"),
        ({"pixel_format": "rgb24"}, "yuv420p"),
        ({"threads": 0}, "1 or more"),
    ],
)
def test_choices_that_do_not_fit_are_named(choices, word):
    with pytest.raises(EncodeParamsError, match=word):
        EncodeParams(**choices)


@pytest.mark.parametrize(
    ("size", "pixel_format"), [((47, 32), "yuv420p"), ((48, 33), "yuv420p"), ((47, 32), "yuv422p")]
)
def test_odd_sides_are_refused_with_advice(tmp_path, size, pixel_format):
    params = EncodeParams(pixel_format=pixel_format)
    with pytest.raises(EncodeParamsError, match="yuv444p"):
        encode_part(tmp_path / "a.mkv", frames(1, size), params, size)
    dense = EncodeParams(pixel_format="yuv444p")
    part = encode_part(tmp_path / "a.mkv", frames(2, size), dense, size)
    assert (probe(part.path).width, probe(part.path).height) == size


def test_small_sides_are_refused(tmp_path, codec):
    with pytest.raises(EncodeParamsError, match="at least"):
        encode_part(tmp_path / "a.mkv", frames(1, (96, 8)), params_of(codec), (96, 8))


@pytest.mark.parametrize(
    ("preset", "size", "pool"),
    [
        ("medium", (96, 64), "none"),
        ("medium", (128, 200), "none"),
        ("medium", (130, 66), "4"),
        ("superfast", (64, 64), "none"),
        ("superfast", (96, 64), "4"),
    ],
)
def test_x265_has_a_pool_only_where_it_has_rows_to_share(preset, size, pool):
    """With one, its lookahead may crash the process at small sizes; without, bits may change."""
    options = EncodeParams("h265", preset=preset).encoder_options(size)
    assert f":pools={pool}:" in options["x265-params"]


def test_wrong_frames_are_named_and_leave_nothing(tmp_path):
    with pytest.raises(InputError, match="at least one"):
        encode_part(tmp_path / "a.mkv", [], EncodeParams(), SIZE)
    with pytest.raises(InputError, match="Frame 1 is"):
        wrong = [*frames(1), *frames(1, (32, 32))]
        encode_part(tmp_path / "a.mkv", wrong, EncodeParams(), SIZE)
    assert os.listdir(tmp_path) == []


def test_a_cancel_leaves_the_earlier_part_alone(tmp_path):
    class Cancelled(Exception):
        pass

    part = encode_part(tmp_path / "a.mkv", frames(), EncodeParams(), SIZE)

    def half():
        yield from frames(3)
        raise Cancelled

    with pytest.raises(Cancelled):
        encode_part(part.path, half(), EncodeParams(), SIZE)
    assert hash_file(part.path) == part.blake2b
    assert os.listdir(tmp_path) == ["a.mkv"]


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path):
    noise = [torch.rand(3, 64, 64) * 2 - 1 for _ in range(30)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DiskFullError, match="limit on the size"):
            encode_part(tmp_path / "a.mkv", noise, EncodeParams(crf=0), (64, 64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def mounted(tmp_path):
    """A small disk of its own; ``mounted("ro")`` makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")

    def remount(how: str):
        subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)

    yield folder, remount
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named(mounted):
    folder, _ = mounted
    noise = [torch.rand(3, 64, 64) * 2 - 1 for _ in range(30)]
    with pytest.raises(DiskFullError, match=r"at least [\d.]+ KiB needed, [\d.]+ KiB free"):
        encode_part(folder / "a.mkv", noise, EncodeParams(crf=0), (64, 64))
    assert os.listdir(folder) == []


def test_a_read_only_folder_is_named(mounted):
    folder, remount = mounted
    remount("ro")
    with pytest.raises(FileError, match="Read-only"):
        encode_part(folder / "a.mkv", frames(), EncodeParams(), SIZE)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match="No such file"):
        encode_part(tmp_path / "no" / "a.mkv", frames(), EncodeParams(), SIZE)
