"""The measure of long videos, on clips that are not."""

import pytest

from bench.studies.long_video import LongRun, LongVideoError, long_json, long_table, measure_long

MIB = 1 << 20


def test_every_length_is_measured_in_a_process_of_its_own():
    seen = []
    runs = measure_long((2, 3), done=seen.append)
    assert seen == runs and [run.frames for run in runs] == [2, 3]
    assert all(100 * MIB < run.peak < 8000 * MIB and run.seconds > 0 for run in runs)


def test_a_run_that_fails_says_why():
    with pytest.raises(LongVideoError, match="PyTorch cannot use it"):
        measure_long((2,), device="no_such_device")


def test_the_table_has_the_ratio_to_the_first():
    runs = [LongRun(200, 400 * MIB, 50.0), LongRun(2000, 440 * MIB, 480.0)]
    assert "| 2,000 frames | 440.0 MiB | **1.10** | 480 s | 0.240 s |" in long_table(runs)
    assert [run["ratio"] for run in long_json(runs)] == [1.0, 1.1]
