"""Test thousands of damaged video files: each must give its frames or one of the pack's errors.

    python -m bench.fuzz                    # 5000 files
    python -m bench.fuzz --files 200 --seed 7
    python -m bench.fuzz --keep folder --first 123 --files 1      # repeat one file and keep it

Small files in many containers are damaged as disks, networks and memory cards damage them: bytes
are changed, zeroed, cut off, left out, repeated, or taken from another file. Each file is probed,
checked for interlacing, read completely and joined with its own sound, in monitored child
processes. These count as failures: any other exception, a wrong number of frames, a value that is
not a number, a crash, more than 10 seconds or more than 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import logging
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.error import FFmpegError

from uav_core.devices import memory
from uav_core.errors import UpscaleAVideoError
from uav_core.video import EncodeParams, Footage, contents, encode_part, join

log = logging.getLogger("fuzz")

LONGEST, MOST_BYTES = 10.0, 2 * 2**30
"""Largest seconds of processor time and bytes of memory for one file."""
_PATIENCE, _START = 6, 600.0
"""Factor of LONGEST that is waited by the clock, as other programs may use the processor; and
seconds to wait for the start of a process."""
_BATCH = 50

W, H, COUNT = 48, 32, 15
# By file extension: encoders of picture and sound, and pixel format.
CONTAINERS = {
    "mp4": ("libx264", "aac", "yuv420p"),
    "mov": ("mjpeg", "pcm_s16le", "yuvj420p"),
    "mkv": ("libx264", "flac", "yuv420p"),
    "webm": ("libvpx", "libopus", "yuv420p"),
    "avi": ("mpeg4", "libmp3lame", "yuv420p"),
    "ts": ("libx264", "mp2", "yuv420p"),
    "mpg": ("mpeg2video", "mp2", "yuv420p"),
    "flv": ("flv", "libmp3lame", "yuv420p"),
    "mxf": ("mpeg2video", "pcm_s16le", "yuv420p"),
    "wmv": ("wmv2", "libmp3lame", "yuv420p"),
    "nut": ("ffv1", "pcm_s16le", "yuv420p"),
    "gif": ("gif", "", "rgb8"),
    "3gp": ("mpeg4", "aac", "yuv420p"),
}


def make_whole(folder: Path) -> list[Path]:
    """A small file of every container that this PyAV can write."""
    made = []
    for ending, encoders in CONTAINERS.items():
        path = folder / f"whole.{ending}"
        try:
            _write(path, *encoders)
        except (FFmpegError, ValueError) as error:
            log.warning("%s files cannot be written: %s.", ending, error)
        else:
            made.append(path)
    return made


def _write(path: Path, codec: str, sound: str, pixel_format: str) -> None:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (H, 2 * W, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "6"})
        stream.width, stream.height, stream.pix_fmt = W, H, pixel_format
        tone = container.add_stream(sound, rate=48000) if sound else None
        if tone is not None:
            tone.codec_context.layout = "mono"
        for i in range(COUNT):
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(still[:, i : i + W]), format="rgb24"
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if tone is not None:
            rate = 48000
            wave = (np.sin(np.arange(rate * COUNT // 25) / 20) * 9000).astype(np.int16)
            for at in range(0, len(wave), 960):
                piece = av.AudioFrame.from_ndarray(wave[None, at : at + 960], "s16", "mono")
                piece.sample_rate, piece.pts = rate, at
                piece.time_base = Fraction(1, rate)
                container.mux(tone.encode(piece))
            container.mux(tone.encode())


def damaged(number: int, seed: int, whole: list[Path]) -> tuple[str, bytes]:
    """File extension and content of the ``number``-th file."""
    rng = random.Random(f"{seed}/{number}")
    path = rng.choice(whole)
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_DAMAGES)(data, rng, whole)
    ending = rng.choice(whole).suffix if rng.random() < 0.05 else path.suffix
    return ending, bytes(data)


def _stretch(data: bytearray, rng: random.Random) -> slice:
    start = rng.randrange(len(data) + 1)
    return slice(start, start + min(len(data), int(2 ** rng.uniform(0, 12))))


def _change(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    for _ in range(min(len(data), int(2 ** rng.uniform(0, 8)))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def _change_head(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    for _ in range(rng.randint(1, 8) if data else 0):
        data[rng.randrange(min(len(data), 600))] = rng.choice((0, 1, 127, 128, 255))


def _change_number(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    """Change four bytes in a row, as in lengths and times."""
    at = rng.randrange(max(1, len(data) - 4))
    value = rng.choice((0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
    data[at : at + 4] = value.to_bytes(4, rng.choice(("big", "little")))


def _zero(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    where = _stretch(data, rng)
    data[where] = bytes(len(data[where]))


def _noise(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    where = _stretch(data, rng)
    data[where] = rng.randbytes(len(data[where]))


def _cut_end(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _cut_begin(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    del data[: _stretch(data, rng).start // 4]


def _leave_out(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    del data[_stretch(data, rng)]


def _repeat(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    where = _stretch(data, rng)
    data[where.start : where.start] = data[where] * rng.randint(1, 4)


def _cross(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    """Replace the data from a random place on by that of another file."""
    other = rng.choice(whole).read_bytes()
    at = rng.randrange(len(data) + 1)
    data[at:] = other[rng.choice((0, min(at, len(other)), rng.randrange(len(other)))) :]


def _join_two(data: bytearray, rng: random.Random, whole: list[Path]) -> None:
    data += rng.choice(whole).read_bytes()


_DAMAGES = (
    _change,
    _change_head,
    _change_number,
    _zero,
    _noise,
    _cut_end,
    _cut_begin,
    _leave_out,
    _repeat,
    _cross,
    _join_two,
)


def use(path: Path, folder: Path) -> str:
    """Do all that a run does with a file, except the networks. Returns the outcome."""
    try:
        footage = Footage.open(path)
        count = 0
        with footage.reader(range(len(footage.times))) as reader:
            for frame in reader:
                count += 1
                assert frame.isfinite().all(), "a value that is no number"
        assert count == len(footage.times), f"{count} frames of {len(footage.times)}"
        assert all(a < b for a, b in zip(footage.times, footage.times[1:], strict=False))
        params = EncodeParams("ffv1", ".mkv").for_source(footage.info)
        contents(path, footage.info, params, whole=True)
        black = torch.full((3, 16, 16), -1.0)
        part = encode_part(folder / "part.mkv", [black] * count, params, (16, 16))
        join([part], folder / "joined.mkv", footage.times, path, params)
    except UpscaleAVideoError as error:
        return type(error).__name__
    return "read, with damage" if footage.times.damaged else "read"


def child(folder: Path, seed: int, first: int, stop: int, keep: Path | None) -> None:
    """Handle some of the files; prints a line of JSON before and after each."""
    whole = sorted(folder.glob("whole.*"))
    logging.disable(logging.CRITICAL)
    print("{}", flush=True)
    with tempfile.TemporaryDirectory(prefix="uav_fuzz_") as own:
        for number in range(first, stop):
            ending, data = damaged(number, seed, whole)
            path = Path(keep or own, f"{number}{ending}")
            path.write_bytes(data)
            print(json.dumps({"begin": number}), flush=True)
            began = time.process_time()
            try:
                outcome, wrong = use(path, Path(own)), ""
            except Exception as error:
                outcome, wrong = type(error).__name__, traceback.format_exc()
            used = {"seconds": time.process_time() - began, "bytes": memory.peak_ram() or 0}
            print(
                json.dumps({"end": number, "outcome": outcome, "wrong": wrong, **used}), flush=True
            )
            for made in Path(own).iterdir():
                made.unlink()


@dataclass
class Figures:
    """Counts and extremes of a run."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    most_bytes: int = 0

    def add(self, number: int, line: dict) -> None:
        """Add the line that a child printed about a file."""
        self.outcomes[line["outcome"]] += 1
        self.slowest = max(self.slowest, line["seconds"])
        self.most_bytes = max(self.most_bytes, line["bytes"])
        if line["wrong"]:
            self.failures.append(f"File {number}: {line['wrong']}")
        elif line["seconds"] > LONGEST:
            self.failures.append(f"File {number}: {line['seconds']:.0f} s.")
        elif line["bytes"] > MOST_BYTES:
            self.failures.append(f"File {number}: {line['bytes'] / 2**30:.1f} GiB.")

    def to_text(self) -> str:
        """All figures in one line."""
        counts = ", ".join(f"{name}: {n}" for name, n in self.outcomes.most_common())
        return (
            f"{sum(self.outcomes.values())} files; {counts}. Slowest {self.slowest:.1f} s, "
            f"most memory {self.most_bytes / 2**20:.0f} MiB. {len(self.failures)} failures."
        )


def run(files: int, seed: int, *, first: int = 0, keep: Path | None = None) -> Figures:
    """Handle the files ``first`` to ``first + files`` of a seed."""
    figures, stop = Figures(), first + files
    with tempfile.TemporaryDirectory(prefix="uav_fuzz_") as folder:
        make_whole(Path(folder))
        while first < stop:
            first = _batch(Path(folder), seed, first, min(first + _BATCH, stop), keep, figures)
            log.info("%s", figures.to_text())
    return figures


def _batch(
    folder: Path, seed: int, first: int, stop: int, keep: Path | None, figures: Figures
) -> int:
    """Handle files in one child. Returns the number of the first file that it did not reach."""
    words = [sys.executable, "-m", "bench.fuzz", "--seed", str(seed), "--first", str(first)]
    words += ["--files", str(stop - first), "--child", str(folder)]
    words += ["--keep", str(keep)] if keep else []
    number = first
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            for line in _lines(process):
                number = line.get("begin", number)
                if "end" in line:
                    figures.add(number, line)
                    number += 1
        except queue.Empty:
            figures.outcomes["hung"] += 1
            figures.failures.append(f"File {number}: nothing for {LONGEST * _PATIENCE:.0f} s.")
            return number + 1
        finally:
            process.kill()
        if number < stop:
            figures.outcomes["crashed"] += 1
            figures.failures.append(f"File {number}: the process ended ({process.wait()}).")
            return number + 1
    return stop


def _lines(process: subprocess.Popen[str]) -> Iterator[dict]:
    """Lines that a child prints; raises queue.Empty if it prints nothing for too long."""
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    line = lines.get(timeout=_START)
    while line:
        yield json.loads(line)
        line = lines.get(timeout=LONGEST * _PATIENCE)


def main(words: list[str] | None = None) -> int:
    """Run the command. Returns 0 if nothing failed."""
    p = argparse.ArgumentParser(
        prog="python -m bench.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--files", type=int, default=5000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--first", type=int, default=0, help="number of the first file")
    p.add_argument("--keep", type=Path, help="keep the files in this folder")
    p.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    o = p.parse_args(words)
    if o.child:
        child(o.child, o.seed, o.first, o.first + o.files, o.keep)
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if o.keep:
        o.keep.mkdir(parents=True, exist_ok=True)
    figures = run(o.files, o.seed, first=o.first, keep=o.keep)
    for failure in figures.failures:
        log.error("%s", failure)
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
