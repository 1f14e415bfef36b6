"""The arithmetic of an estimate, on runs counted by hand."""

from __future__ import annotations

import pytest

from uav_core import InputError
from uav_core.longvideo.estimate import Measured, Work, clip_bytes, duration, estimate

PIECE = Work((8,), 20, 30, steps=5, frames_per_group=4)


def test_work_is_counted():
    work = Work((20, 3), 10, 10, steps=4, halves=2, frames_per_group=3, propagates=True)
    # 20 frames: 0-8, 6-14, 12-20; 3 frames: one short segment.
    assert work.segments == (8, 8, 8, 3)
    assert work.passes == 16 and work.frames == 23 and work.pairs == 21
    assert work.groups == (3,) * 6 + (2, 3)
    assert work.sampled == 4 * 27 * 100 * 2


def test_a_piece_that_is_the_whole_takes_as_long():
    result = estimate(PIECE, Measured(PIECE, pass_seconds=2.0, group_seconds=3.0))
    assert result.sampling_seconds == pytest.approx(10)
    assert result.decoding_seconds == pytest.approx(6)
    assert result.seconds == pytest.approx(16)


@pytest.mark.parametrize(
    ("changes", "sampling", "decoding"),
    [
        ({"h": 40, "w": 60}, 4, 4),
        ({"steps": 10}, 2, 1),
        ({"halves": 2}, 2, 1),
        ({"halves": 2, "guided_steps": 1}, 1.2, 1),
        ({"scenes": (8, 8, 8)}, 3, 3),
        ({"scenes": (20,)}, 3, 2.5),
        ({"scenes": (4,)}, 0.5, 0.5),
        ({"frames_per_group": 8}, 1, 1),
        ({"scenes": (16,), "overlap": 0}, 2, 2),
        ({"scenes": (16,), "overlap": 7}, 9, 2),
    ],
)
def test_time_grows_with_what_there_is_to_do(changes, sampling, decoding):
    known = {"scenes": (8,), "h": 20, "w": 30, "steps": 5, "frames_per_group": 4}
    result = estimate(Work(**{**known, **changes}), Measured(PIECE, 2.0, 3.0))
    assert result.sampling_seconds == pytest.approx(10 * sampling)
    assert result.decoding_seconds == pytest.approx(6 * decoding)


def test_flow_is_counted_by_pairs_where_there_is_any():
    work = Work((5, 5), 40, 30, steps=1, propagates=True)
    measured = Measured(PIECE, 0.0, 0.0, pair_seconds=0.5)
    assert estimate(work, measured).flow_seconds == pytest.approx(8 * 0.5 * 2)
    assert estimate(Work((5, 5), 40, 30, steps=1), measured).flow_seconds == 0


def test_the_larger_of_pass_and_group_counts():
    measured = Measured(PIECE, 1, 1)
    result = estimate(
        PIECE, measured, pass_bytes=3 << 30, group_bytes=5 << 30, held_bytes=1 << 30, disk_bytes=99
    )
    assert result.device_bytes == 5 << 30 and result.ram_bytes == 1 << 30
    on_gpu, on_cpu = result.to_text(), result.to_text("CPU")
    assert "memory of the GPU 5 GiB, RAM 1 GiB, disk 99 bytes" in on_gpu
    assert "About RAM 6 GiB" in on_cpu and "GPU" not in on_cpu


def test_the_text_says_that_it_is_an_estimate():
    work = Work((100, 50), 20, 30, steps=5, propagates=True)
    text = estimate(work, Measured(PIECE, 2.0, 3.0, 0.1)).to_text()
    assert text.startswith("Estimate for all 150 frames of 30x20 in 2 scenes: ")
    assert f"({work.passes} passes)" in text and f"({len(work.groups)} groups), flow 15 s" in text


def test_a_clip_held_whole_takes_its_result_and_more():
    result = 4 * 3 * 16 * 10 * 100 * 50
    assert result < clip_bytes(10, 100, 50) < 3 * result
    assert clip_bytes(20, 100, 50) == 2 * clip_bytes(10, 100, 50)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599, "59:59 min"),
     (3599.7, "1:00 h"), (7440, "2:04 h"), (100 * 3600, "100:00 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenes": ()},
        {"scenes": (0,)},
        {"steps": 0},
        {"halves": 3},
        {"overlap": 8},
        {"frames_per_group": 0},
        {"h": 0},
    ],
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(InputError):
        Work(**{"scenes": (8,), "h": 20, "w": 30, "steps": 5, **wrong})
