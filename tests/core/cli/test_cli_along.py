"""``--along``: mattes and depth beside a video, as files and as numbered pictures."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from generated import det

from uav_core.cli import main as cli
from uav_core.video import EncodeParams, VideoReader, encode_part, frame_times
from uav_core.video.color import from_floats
from uav_core.video.sequences import Frames, encoded, numbers_of, save_numbers, size_of

FAST = ["--steps", "1", "--propagation-steps", "", "--cut-detection", "off"]
PARAMS = EncodeParams("ffv1", ".mkv", rate=Fraction(10))
FAR, LEVEL = 1000.25, 12345 / 65535


@pytest.fixture
def clip(tmp_path) -> Path:
    frames = det("along", (3, 3, 16, 24)).mul(0.3).clamp(-1, 1)
    encode_part(tmp_path / "clip.mkv", frames, PARAMS, (24, 16))
    return tmp_path / "clip.mkv"


def written(folder: Path, ending: str, count: int = 3, size: tuple[int, int] = (8, 12)) -> Path:
    """Gray pictures: EXR with a step from 3 to FAR, PNG of one level."""
    folder.mkdir()
    for i in range(5, 5 + count):
        values = torch.full((1, *size), 3.0 if ending == ".exr" else LEVEL)
        if ending == ".exr":
            values[..., size[1] // 2 :] = FAR
        save_numbers(folder / f"z.{i:04d}{ending}", values)
    return folder


def found(folder: Path) -> Frames:
    frames = Frames.there(folder)
    assert frames is not None
    return frames


def test_numbered_pictures_and_videos_go_along(clip, tmp_path, caplog):
    depth, gray = written(tmp_path / "depth", ".exr"), written(tmp_path / "gray", ".png")
    matte = tmp_path / "matte.mkv"
    mattes = [torch.full((3, 16, 24), value) for value in (-1.0, 1.0, -1.0)]
    encode_part(matte, mattes, PARAMS, (24, 16))
    out = tmp_path / "out"
    words = [str(clip), str(out / "large.mp4"), *FAST]
    words += ["--along", str(depth), str(out / "depth"), "--along", str(matte)]
    words += [str(out / "matte.mkv"), "--along", f"{gray}/z.%04d.png", f"{out}/gray/a%d.png"]
    assert cli.main(words) == 0
    assert len(frame_times(out / "large.mp4")) == 3
    large = list(numbers_of(found(out / "depth")))
    assert [frame.shape for frame in large] == [(1, 64, 96)] * 3
    for frame in large:
        assert frame.min() == 3 and frame.max() == FAR
        assert frame.mean() == pytest.approx((3 + FAR) / 2, rel=0.02)
    assert sorted(p.name for p in (out / "gray").iterdir()) == ["a5.png", "a6.png", "a7.png"]
    for frame in numbers_of(found(out / "gray")):
        assert frame.shape == (1, 64, 96)
        assert (frame * 65535 - 12345).abs().max() < 0.01, "16 bits are kept"
    frames = list(VideoReader(out / "matte.mkv"))
    assert [float(f.mean()) for f in frames] == pytest.approx([-1, 1, -1], abs=1e-4)
    assert frames[0].shape == (3, 64, 96)
    assert list(frame_times(out / "matte.mkv")) == list(frame_times(matte))

    (out / "gray" / "a6.png").unlink()
    before = (out / "matte.mkv").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert cli.main(words) == 0
    assert "finished before" in caplog.text and "matte.mkv' already exists" in caplog.text
    assert (out / "gray" / "a6.png").exists()
    assert (out / "matte.mkv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("ending", "shape", "target", "says"),
    [
        (".png", (2, 8, 12), "a", "has 2 frames, but the video has 3"),
        (".png", (3, 8, 8), "a", "expected the same aspect"),
        (".png", (3, 32, 48), "a", "not larger"),
        (".png", (3, 8, 12), "a.mkv", "expected numbered pictures, like the input"),
        (".exr", (3, 8, 12), "a%d.png", "expected EXR output for EXR input"),
        (".png", (3, 8, 12), "large.mp4", "expected numbered pictures, like the input"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_work(
    ending, shape, target, says, clip, tmp_path, caplog
):
    layer, out = written(tmp_path / "layer", ending, shape[0], shape[1:]), tmp_path / "out"
    words = [str(clip), str(out / "large.mp4"), "--along", str(layer), str(out / target)]
    assert cli.main([*words, *FAST]) == 1
    assert says in caplog.text and not out.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused_before_the_work(value, clip, tmp_path, caplog):
    layer, out = written(tmp_path / "layer", ".exr"), tmp_path / "out"
    bad = from_floats(torch.full((1, 8, 12), value))
    (layer / "z.0007.exr").write_bytes(encoded(bad, "exr", {"format": "float"}))
    words = [str(clip), str(out / "large.mp4"), "--along", str(layer), str(out / "a")]
    assert cli.main([*words, *FAST]) == 1
    assert "z.0007.exr' has NaN or infinity" in caplog.text and not out.exists()


def test_pictures_that_the_run_reads_or_writes_are_not_replaced(tmp_path, caplog):
    beauty = written(tmp_path / "beauty", ".png", size=(16, 24))
    matte = written(tmp_path / "matte", ".png")
    out, other = tmp_path / "out", tmp_path / "other"
    words = [str(beauty / "z.%04d.png"), str(out), *FAST, "--along", str(matte / "z.%04d.png")]
    for target in (out, beauty / "z.%04d.png", matte / "z.%04d.png"):
        caplog.clear()
        assert cli.main([*words, str(target)]) == 1
        assert "This run uses the file" in caplog.text and not out.exists()
    assert cli.main([*words, str(other)]) == 0
    # Now that the video is there, pictures of other numbers might replace some of the input.
    written(tmp_path / "later", ".png").rename(tmp_path / "moved")
    for path in sorted((tmp_path / "moved").iterdir(), reverse=True):
        path.rename(path.with_name(path.name.replace("000", "001")))
    before = [path.read_bytes() for path in sorted(beauty.iterdir())]
    words[-1] = str(tmp_path / "moved" / "z.%04d.png")
    (beauty / "z.0007.png").rename(beauty / "z.0015.png")
    (beauty / "z.0006.png").rename(beauty / "z.0016.png")
    (beauty / "z.0005.png").rename(beauty / "z.0017.png")
    words[0] = str(beauty / "z.%04d.png")
    assert cli.main([*words, str(beauty / "z.%04d.png")]) == 1
    assert [path.read_bytes() for path in sorted(beauty.iterdir())] == before[::-1]


def test_nothing_is_replaced(clip, tmp_path, caplog):
    layer, out = written(tmp_path / "layer", ".png"), tmp_path / "out"
    words = [str(clip), str(out / "large.mp4"), *FAST, "--along", str(layer)]
    assert cli.main([*words, str(layer)]) == 1 and "expected a different file name" in caplog.text
    out.mkdir()
    (out / "z.0006.png").write_text("precious")
    assert cli.main([*words, str(out)]) == 1 and "already exists" in caplog.text
    assert [path.name for path in out.iterdir()] == ["z.0006.png"]
    assert size_of(found(layer)) == (12, 8)
    for extra in (["--workers", "2"], ["--aspect", "crop", "--size", "96x60"]):
        caplog.clear()
        assert cli.main([*words, str(tmp_path / "new"), *extra]) == 1
        assert "--along" in caplog.text
