"""Damaged and crossed video files give frames or a named error; the watch over them works."""

import subprocess
from pathlib import Path

import pytest

from bench import fuzz

ROOT = Path(fuzz.__file__).parents[1]


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_short_run():
    figures = fuzz.run(150, seed=1)
    assert figures.failures == []
    assert sum(figures.outcomes.values()) == 150
    # Neither are all files too damaged, nor none.
    assert 20 < figures.outcomes["read"] + figures.outcomes["read, with damage"] < 140
    assert figures.outcomes["UnreadableVideoError"] > 5


def test_a_stream_that_comes_up_late_ends_no_run():
    """An FLV whose second sound begins in the middle: PyAV ended it with an IndexError."""
    figures = fuzz.run(1, seed=2711, first=2249)
    assert figures.failures == []


def test_the_files_are_the_same_each_time_and_of_many_containers(tmp_path):
    whole = fuzz.make_whole(tmp_path)
    assert len({path.suffix for path in whole}) >= 10
    some = [fuzz.damaged(i, 3, whole) for i in range(200)]
    assert some == [fuzz.damaged(i, 3, whole) for i in range(200)]
    assert some != [fuzz.damaged(i, 4, whole) for i in range(200)]
    assert {ending for ending, _ in some} == {path.suffix for path in whole}
    assert sum(data in {path.read_bytes() for path in whole} for _, data in some) < 10


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("raise ZeroDivisionError", "ZeroDivisionError"),
        ("os._exit(3)", "the process ended (3)"),
        ("time.sleep(60)", "nothing for"),
        ("fuzz.memory.peak_ram = lambda: 3 * 2**30", "3.0 GiB"),
        ("time.process_time = lambda now=time.process_time: now() + 11", "11 s"),
    ],
)
def test_every_kind_of_failure_is_seen(fault, says, monkeypatch):
    """One file of three goes wrong; the others are looked at all the same."""
    script = f"""
import os, sys, time
from bench import fuzz
def use(path, folder, whole=fuzz.use):
    if path.stem == "1":
        {fault}
        return "read"
    return "read"
fuzz.use = use
sys.exit(fuzz.main(sys.argv[1:]))
"""
    start = subprocess.Popen

    def popen(words, **options):
        at = words.index("bench.fuzz")
        return start([words[0], "-c", script, *words[at + 1 :]], **options)

    monkeypatch.setattr(fuzz.subprocess, "Popen", popen)
    monkeypatch.setattr(fuzz, "_PATIENCE", 1.5 if "nothing" in says else 6)
    figures = fuzz.run(3, seed=0)
    assert figures.failures and "File 1" in figures.failures[0]
    assert says in figures.failures[0]
    assert sum(figures.outcomes.values()) == 3
