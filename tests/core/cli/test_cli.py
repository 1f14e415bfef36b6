"""The command line on small real files."""

from __future__ import annotations

import logging
import random
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import pytest
import tiny
import torch
from generated import det
from made_frames import H as FRAMES_H
from made_frames import W as FRAMES_W
from made_frames import write_frames
from safetensors.torch import save_file
from video_files import write_clip

from scripts.env.layout import ROOT
from uav_core.cli import main as cli
from uav_core.cli.options import rate
from uav_core.jobs import FOLDER, list_jobs
from uav_core.video import EncodeParams, VideoReader, encode_part, frame_times, probe
from uav_core.video.color import floats
from uav_core.weights import included

KILLS = 10
WAIT = 600
FAST = ["--steps", "1", "--propagation-steps", "", "--cut-detection", "off", "--part-length", "2"]
PARAMS = EncodeParams("ffv1", ".mkv", rate=Fraction(10))


@pytest.fixture(scope="module")
def quick_files(tmp_path_factory) -> dict[str, Path]:
    """The quickest networks, as files under the names of the included ones."""
    folder = tmp_path_factory.mktemp("quick")
    networks = {
        included.UNET: tiny.unet_weights(tiny.QUICK_UNET),
        included.VAE_VIDEO: tiny.vae_weights("vae_3d", tiny.QUICK_VAES["vae_3d"]),
    }
    for name, weights in networks.items():
        save_file(weights, folder / f"{name}.safetensors")
    files = {name: folder / f"{name}.safetensors" for name in networks}
    return {**files, included.TEXT: included.path_of(included.TEXT)}


@pytest.fixture(autouse=True)
def included_weights(request, quick_files, monkeypatch) -> None:
    """The quick networks in place of the included weights, but in tests marked ``included``."""
    if request.node.get_closest_marker("included") is None:
        monkeypatch.setattr(included, "path_of", quick_files.__getitem__)


@pytest.fixture
def clip(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    frames = det("cli", (3, 3, 16, 24)).mul(0.3).clamp(-1, 1)
    encode_part(folder / "clip.mkv", frames, PARAMS, (24, 16))
    return folder / "clip.mkv"


@pytest.mark.included
def test_a_file_becomes_a_file(clip, tmp_path, caplog):
    target = tmp_path / "out" / "large.mp4"
    target.parent.mkdir()
    assert cli.main([str(clip), str(target), *FAST]) == 0
    frames = list(VideoReader(target))
    assert len(frames) == 3 and frames[0].shape == (3, 64, 96)
    before = target.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert cli.main([str(clip), str(target), *FAST]) == 0
    assert target.stat().st_mtime_ns == before and "finished before" in caplog.text


def test_half_precision_is_another_job(tmp_path):
    """And not a copy of the result in fp32; jobs made before this was told apart still match."""

    def names(*words):
        options = cli.parser("").parse_args(["in.mp4", "out.mp4", "--device", "cpu", *words])
        return set(cli.engine(options, cli.LongVideoParams(), tmp_path).weights(tmp_path))

    assert names() == {"unet", "vae", "texts"}
    assert names("--half") == {*names(), "unet dtype"}


def test_another_file_is_not_replaced(clip, tmp_path, caplog):
    target = tmp_path / "mine.mp4"
    target.write_text("precious")
    assert cli.main([str(clip), str(target), *FAST]) == 1
    assert target.read_text() == "precious" and "already exists" in caplog.text


def test_a_folder_goes_on_past_a_bad_file(clip, tmp_path, caplog):
    (clip.parent / "broken.mp4").write_bytes(b"no video" * 100)
    (clip.parent / "readme.txt").write_text("not even one")
    with caplog.at_level(logging.INFO):
        assert cli.main([str(clip.parent), str(tmp_path / "out"), *FAST]) == 1
    assert "1 of 2 videos done" in caplog.text and "Failed: broken.mp4" in caplog.text
    assert "Left out: readme.txt" in caplog.text
    assert [p.name for p in (tmp_path / "out").glob("*.m*")] == ["clip.mkv"]


def test_a_folder_goes_on_after_memory_ran_out(clip, tmp_path, caplog, monkeypatch):
    shutil.copy(clip, clip.with_name("a.mkv"))
    load = cli.load_unet

    def full_once(*words, **options):
        monkeypatch.setattr(cli, "load_unet", load)
        raise torch.OutOfMemoryError("no memory left for the weights")

    monkeypatch.setattr(cli, "load_unet", full_once)
    assert cli.main([str(clip.parent), str(tmp_path / "out"), *FAST]) == 1
    assert "Failed: a.mkv: no memory left for the weights" in caplog.text
    assert [p.name for p in (tmp_path / "out").glob("*.mkv")] == ["clip.mkv"]


@pytest.mark.parametrize("device", ["foo", "xla"])
def test_a_device_that_is_not_there_is_said(device, clip, tmp_path, caplog):
    assert cli.main([str(clip), str(tmp_path / "out" / "a.mkv"), "--device", device]) == 1
    assert f"--device {device}: PyTorch cannot use it here" in caplog.text
    assert not (tmp_path / "out").exists()


def test_jobs_in_a_linked_folder_are_listed(clip, tmp_path, caplog):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FOLDER).symlink_to(tmp_path / "disk")
    assert cli.main([str(clip), str(tmp_path / "out" / "large.mkv"), *FAST]) == 0
    with caplog.at_level(logging.INFO):
        assert cli.main(["--jobs", str(tmp_path / "out")]) == 0
    assert "3 of 3 frames" in caplog.text


@pytest.mark.parametrize("word", ["--jobs", "--clean"])
def test_a_folder_of_jobs_that_is_not_there_is_said(word, tmp_path, caplog):
    assert cli.main([word, str(tmp_path / "typo")]) == 1
    assert "typo' is not a folder" in caplog.text


def test_jobs_are_listed_and_cleaned(clip, tmp_path, caplog):
    target = tmp_path / "large.mp4"
    assert cli.main([str(clip), str(target), *FAST]) == 0
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert cli.main(["--jobs", str(tmp_path)]) == 0
    assert "finished" in caplog.text and "3 of 3 frames" in caplog.text
    assert cli.main(["--clean", str(tmp_path), "--dry-run"]) == 0
    assert len(list_jobs(tmp_path / FOLDER)) == 1
    assert cli.main(["--clean", str(tmp_path)]) == 0
    assert list_jobs(tmp_path / FOLDER) == ()
    assert target.is_file()


def test_jobs_are_cleaned_down_to_a_bound(clip, tmp_path, caplog):
    assert cli.main([str(clip), str(tmp_path / "large.mp4"), *FAST]) == 0
    (job,) = list_jobs(tmp_path / FOLDER)
    for share, left in ((1.1, 1), (0.9, 0)):
        bound = str(job.bytes * share / 2**30)
        assert cli.main(["--clean", str(tmp_path), "--max-gb", bound]) == 0, caplog.text
        assert len(list_jobs(tmp_path / FOLDER)) == left


@pytest.mark.parametrize("words", [["--half"], ["--device", "cpu"], ["--unet", "/models/a.bin"]])
def test_what_a_server_has_no_use_for_is_refused(words, clip, tmp_path, caplog):
    target = tmp_path / "out.mp4"
    # Nothing listens at that address: it is refused before anyone is asked.
    assert cli.main([str(clip), str(target), "--server", "127.0.0.1:9", *words]) == 1
    assert words[0] in caplog.text and "answers" not in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:9", "http://127.0.0.1:9/under"])
def test_a_server_that_is_not_there_is_said(address, clip, tmp_path, caplog):
    for target in (tmp_path / "out.mp4", tmp_path / "folder"):
        source = clip if target.suffix else clip.parent
        caplog.clear()
        assert cli.main([str(source), str(target), "--server", address]) == 1
        assert "No ComfyUI answers" in caplog.text and "--server" in caplog.text
        assert "videos done" not in caplog.text, "it is not the file's fault"


@pytest.mark.parametrize("address", ["", "ftp://somewhere", "http://"])
def test_an_address_that_is_none_is_said(address, clip, tmp_path, caplog):
    assert cli.main([str(clip), str(tmp_path / "out.mp4"), "--server", address]) == 1
    assert "expected an address" in caplog.text


@pytest.mark.parametrize(
    "words",
    [[], ["missing.mp4", "out.mp4"], ["missing.mp4", "out.gif"]],
)
def test_wrong_words_are_refused(words, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    assert caplog.text
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["--short-side", "40"], (60, 40)),
        (["--size", "64x64", "--aspect", "pad", "--resize", "after"], (64, 64)),
        (["--factor", "1.5", "--resize", "before"], (36, 24)),
    ],
)
def test_other_sizes_than_4x(words, size, clip, tmp_path, caplog):
    target = tmp_path / "out.mp4"
    with caplog.at_level(logging.INFO):
        assert cli.main([str(clip), str(target), *FAST, *words]) == 0
    info = probe(target)
    assert (info.width, info.height) == size
    assert f"{size[0]}x{size[1]}, resized" in caplog.text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "1920"], "such as 1920x1080"),
        (["--size", "1920x1080"], "expected 1 to 4 times, 24x16 to 96x64"),
        (["--short-side", "-5"], "short side is -5"),
        (["--factor", "8"], "factor is 8"),
        (["--resize", "before"], "give --factor, --short-side or --size"),
        (["--short-side", "40", "--aspect", "pad"], "give --size"),
    ],
)
@pytest.mark.parametrize("where", [[], ["--server", "127.0.0.1:9"]])
def test_sizes_that_cannot_be_are_refused(words, says, where, clip, tmp_path, caplog):
    assert cli.main([str(clip), str(tmp_path / "out" / "out.mp4"), *words, *where]) == 1
    assert says in caplog.text
    assert not (tmp_path / "out").exists(), "nothing is left behind"


@pytest.mark.slow
def test_killed_again_and_again_it_gives_the_same_bits(tmp_path):
    """Kill -9 at random points; every time the same command again."""
    frames = det("killed", (18, 3, 32, 48)).mul(0.3).clamp(-1, 1)
    encode_part(tmp_path / "clip.mkv", frames, PARAMS, (48, 32))
    words = [*FAST, "--short-side", "64", "--resize", "before"]
    chance = random.Random(5)

    def command(target: Path) -> subprocess.Popen[str]:
        target.parent.mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "uav_core.cli", str(tmp_path / "clip.mkv"), str(target), *words],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    whole, killed = tmp_path / "whole" / "out.mp4", tmp_path / "killed" / "out.mp4"
    with command(whole) as process:
        assert process.stderr is not None and process.stderr.read(1), "it has begun"
        started = time.monotonic()
        assert process.communicate(timeout=WAIT) and process.returncode == 0
    seconds, completed = time.monotonic() - started, 0
    for _ in range(KILLS):
        with command(killed) as process:
            assert process.stderr is not None and process.stderr.read(1)
            time.sleep(chance.uniform(0, 0.5 * seconds))
            process.kill()
            process.communicate()
        if killed.exists():
            assert killed.read_bytes() == whole.read_bytes()
            completed += 1
            shutil.rmtree(killed.parent)
    assert completed < KILLS, "it was never interrupted"
    shutil.rmtree(killed.parent, ignore_errors=True)
    with command(killed) as process:
        deadline = time.monotonic() + WAIT
        # The second: by then the first is written down, not only there.
        while len(list(killed.parent.glob(f"{FOLDER}/*/part_*.mkv"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.communicate()
    assert not killed.exists()
    with command(killed) as process:
        _, said = process.communicate(timeout=WAIT)
    assert process.returncode == 0 and "were already finished by an earlier run" in said
    assert "96x64, resized before upscaling from 48x32 to 24x16" in said
    assert killed.read_bytes() == whole.read_bytes()


def test_one_size_is_given(capsys, clip, tmp_path):
    with pytest.raises(SystemExit):
        cli.main([str(clip), str(tmp_path / "o.mp4"), "--size", "64x64", "--short-side", "40"])
    assert "not allowed with" in capsys.readouterr().err


def test_the_seed_matters(clip, tmp_path):
    results = []
    for seed in ("1", "2"):
        target = tmp_path / f"seed{seed}.mkv"
        words = [str(clip), str(target), *FAST, "--seed", seed, "--codec", "ffv1"]
        assert cli.main(words) == 0
        results.append(torch.stack(list(VideoReader(target))))
    assert not torch.equal(*results)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--guidance", "inf"], "Guidance is inf"),
        (["--guidance-start", "nan"], "guidance range is nan"),
        (["--factor", "nan"], "factor is nan"),
    ],
)
def test_numbers_that_are_none_are_refused(words, says, clip, tmp_path, caplog):
    assert cli.main([str(clip), str(tmp_path / "out" / "out.mp4"), *words]) == 1
    assert says in caplog.text and not (tmp_path / "out").exists()


def test_rates_that_are_none_are_refused():
    assert (rate("24000/1001"), rate("24"), rate("24/1")) == (Fraction(24000, 1001), 24, 24)
    for text in ("24/0", "24/-5", "0", "x"):
        with pytest.raises(ValueError):
            rate(text)


@pytest.mark.parametrize(
    "words", [["--max-gb", "nan"], ["--max-gb", "inf"], ["--keep-days", "nan"]]
)
def test_bounds_that_are_no_number_remove_nothing(words, tmp_path, caplog):
    assert cli.main(["--clean", str(tmp_path), *words]) == 1
    assert "expected" in caplog.text


def test_the_same_video_under_another_name_is_there_as_well(clip, tmp_path, caplog):
    first, second, mine = (tmp_path / f"{name}.mkv" for name in ("first", "second", "mine"))
    assert cli.main([str(clip), str(first), *FAST]) == 0
    left = second.with_name(f"{second.name}.0123abcd.tmp")  # by a run that was killed
    left.write_bytes(b"half")
    with caplog.at_level(logging.INFO):
        assert cli.main([str(clip), str(second), *FAST]) == 0
    assert not left.exists()
    assert second.read_bytes() == first.read_bytes() and "Copied from" in caplog.text
    assert len(list_jobs(tmp_path / FOLDER)) == 1
    mine.write_text("precious")
    assert cli.main([str(clip), str(mine), *FAST]) == 1
    assert mine.read_text() == "precious" and "already exists" in caplog.text
    # The first may go: the second is the same.
    first.unlink()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert cli.main([str(clip), str(second), *FAST]) == 0
    assert "finished before" in caplog.text and not first.exists()


def test_copies_in_a_folder_give_a_file_each(clip, tmp_path):
    (clip.parent / "copy of clip.mkv").write_bytes(clip.read_bytes())
    assert cli.main([str(clip.parent), str(tmp_path / "out"), *FAST]) == 0
    assert len(list((tmp_path / "out").glob("*.mkv"))) == 2


def test_all_of_a_folder_and_its_sub_folders_is_upscaled(clip, tmp_path, caplog):
    write_clip(clip.parent / "clip.gif", 2, codec="gif", pixel_format="rgb8", size=(24, 16))
    (clip.parent / "deep").mkdir()
    write_clip(clip.parent / "deep" / "CLIP.MTS", 12, size=(24, 16))
    out = tmp_path / "out"
    with caplog.at_level(logging.INFO):
        assert cli.main([str(clip.parent), str(out), "--sub-folders", *FAST]) == 0
    assert "3 of 3 videos done" in caplog.text
    made = {path.relative_to(out).as_posix() for path in out.rglob("*.m??")}
    assert {n for n in made if "part" not in n} == {"clip.mkv", "clip.mp4", "deep/CLIP.mp4"}
    assert probe(out / "deep" / "CLIP.mp4").width == 96
    listed = {}
    for words in ([], ["--sub-folders"]):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert cli.main(["--jobs", str(out), *words]) == 0
        listed[len(words)] = sorted(record.message.split()[2] for record in caplog.records)
    assert listed == {
        0: ["clip.gif", "clip.mkv"],
        1: ["clip.gif", "clip.mkv", str(Path("deep", "CLIP.MTS"))],
    }
    # The bound is for all of them together.
    roots = [out / FOLDER, out / "deep" / FOLDER]
    total = sum(job.bytes for job in list_jobs(*roots)) / 2**30
    for share, left in ((1.01, 3), (0.99, 2)):
        words = ["--clean", str(out), "--sub-folders", "--max-gb", str(total * share)]
        assert cli.main(words) == 0
        assert len(list_jobs(*roots)) == left
    assert cli.main(["--clean", str(out)]) == 0
    assert len(list_jobs(out / FOLDER)) == 0
    assert cli.main(["--clean", str(out), "--sub-folders"]) == 0
    assert list_jobs(*roots) == () and probe(out / "deep" / "CLIP.mp4").width == 96


def unwritable(tmp_path) -> list[Path]:
    """Folders that nothing can be written to: a file is in the way, or the system says no."""
    (tmp_path / "file.txt").write_text("x")
    folders = [tmp_path / "file.txt", tmp_path / "file.txt" / "below"]
    return [*folders, Path("/proc")] if Path("/proc/self").exists() else folders


def test_a_folder_that_cannot_be_written_is_said_before_any_pass(clip, tmp_path, caplog):
    for folder in unwritable(tmp_path):
        for words in ([clip, folder / "out.mp4"], [clip.parent, folder / "out"]):
            caplog.clear()
            with caplog.at_level(logging.INFO):
                assert cli.main([*map(str, words), *FAST]) == 1
            errors = [r for r in caplog.records if r.levelno == logging.ERROR]
            assert len(errors) == 1 and str(folder) in errors[0].message
            assert errors[0].exc_info is None and "part 1" not in caplog.text


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a:b.mp4", "':'"),
        ("x" * 248 + ".mp4", "252 bytes, more than 251"),
        ("\N{SNOWMAN}" * 83 + ".mp4", "bytes"),
        ("x" * 300 + ".mp4", "304 bytes"),
        ("con.mp4", "device name on Windows"),
        ("LPT1.mp4", "device name on Windows"),
        ("a\nb.mp4", "control character"),
    ],
)
@pytest.mark.parametrize("where", [[], ["--server", "127.0.0.1:9"]])
def test_names_that_the_end_would_refuse_are_refused_at_the_start(
    name, says, where, clip, tmp_path, caplog
):
    target = tmp_path / "out" / name
    assert cli.main([str(clip), str(target), *FAST, *where]) == 1
    assert says in caplog.text and not target.parent.exists()


def test_a_path_too_long_for_the_system_is_said(clip, tmp_path, caplog):
    for words in (["x" * 300, "out.mp4"], [str(clip), str(tmp_path / ("x" * 300) / "out.mp4")]):
        caplog.clear()
        assert cli.main([*words, *FAST]) == 1
        assert "too long" in caplog.text.lower()


@pytest.mark.parametrize("ending", [".exr", ".png"])
def test_a_folder_of_frames_becomes_a_folder_of_frames(ending, tmp_path, caplog):
    """Also again, from the video that is kept, and into a video."""
    folder, out = write_frames(tmp_path / "in", ending=ending), tmp_path / "out"
    left = out / ".frames_of_a_run_that_was_killed"
    left.mkdir(parents=True)
    (left / "job.lock").touch()
    assert cli.main([str(folder), str(out), *FAST]) == 0
    names = [f"shot.{i:04d}{ending}" for i in (7, 8, 9)]
    assert sorted(p.name for p in out.iterdir()) == [*names, "shot.mkv", FOLDER]
    before = {name: (out / name).read_bytes() for name in names}
    with av.open(str(out / names[0])) as container:
        picture = next(container.decode(video=0))
        assert (picture.width, picture.height) == (4 * FRAMES_W, 4 * FRAMES_H)
        if ending == ".exr":
            assert floats(picture).max() > 5
        else:
            assert picture.format.name == "rgb48be"
    (out / names[1]).unlink()
    with caplog.at_level(logging.INFO):
        pattern = f"shot.%04d{ending}"
        assert cli.main([str(folder / pattern), str(out / pattern), *FAST]) == 0
    assert "finished before" in caplog.text
    assert {name: (out / name).read_bytes() for name in names} == before
    video = tmp_path / "video.mov"
    assert cli.main([str(folder), str(video), "--rate", "40/2", *FAST]) == 0
    assert probe(video).rate == 20


def test_frames_of_a_video_are_png(clip, tmp_path, caplog):
    assert cli.main([str(clip), str(tmp_path / "a%d.exr"), *FAST]) == 1
    assert "Write PNG" in caplog.text
    (tmp_path / "a1.png").touch()
    assert cli.main([str(clip), str(tmp_path / "a%d.png"), *FAST]) == 1
    assert "already exists" in caplog.text
    (tmp_path / "a1.png").unlink()
    assert cli.main([str(clip), str(tmp_path / "a%d.png"), *FAST]) == 0
    assert (tmp_path / "a3.png").exists() and len(frame_times(tmp_path / "a.mkv")) == 3
