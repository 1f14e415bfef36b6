"""An estimate: its arithmetic, on runs counted by hand, and what is told on a clock of the test."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from uav_core import InputError
from uav_core.flow.estimate import pairs_at_once
from uav_core.longvideo import LongVideoParams, estimate
from uav_core.longvideo.course import DECODING, FLOW, SAMPLING
from uav_core.longvideo.estimate import Estimate, Forecast, Work, clip_bytes, duration
from uav_core.longvideo.scene import BATCHES_AHEAD
from uav_core.sampling.guidance import GuidanceRange

GPU = torch.device("cuda")
PLAIN = LongVideoParams(steps=5, guidance=1.0, propagation_steps="", frames_per_group=4)
MOVING = replace(PLAIN, propagation_steps="last 1")
PIECE = Work(PLAIN, (8,), 20, 30)
SECONDS = {SAMPLING: 10.0, DECODING: 6.0, FLOW: 0.0}


def test_work_is_counted():
    params = LongVideoParams(steps=4, guidance=2.0, propagation_steps="last 1", frames_per_group=3)
    work = Work(params, (20, 3), 10, 10)
    # 20 frames: 0-8, 6-14, 12-20; 3 frames: one short segment.
    assert work.segments == (8, 8, 8, 3)
    assert work.passes == 16 and work.frames == 23 and work.pairs == 21
    assert work.groups == (3,) * 6 + (2, 3)
    assert work.amounts == {SAMPLING: 4 * 27 * 100 * 2, DECODING: 2300, FLOW: 2100}


def test_a_piece_that_is_the_whole_takes_as_long():
    assert PIECE.scaled(PIECE, SECONDS) == pytest.approx(SECONDS)


@pytest.mark.parametrize(
    ("changes", "size", "sampling", "decoding"),
    [
        ({}, ((8,), 40, 60), 4, 4),
        ({"steps": 10}, ((8,), 20, 30), 2, 1),
        ({"guidance": 2.0}, ((8,), 20, 30), 2, 1),
        ({"guidance": 2.0, "guided": GuidanceRange(0.0, 0.2)}, ((8,), 20, 30), 1.2, 1),
        ({}, ((8, 8, 8), 20, 30), 3, 3),
        ({}, ((20,), 20, 30), 3, 2.5),
        ({}, ((4,), 20, 30), 0.5, 0.5),
        ({"frames_per_group": 8}, ((8,), 20, 30), 1, 1),
        ({"overlap": 0}, ((16,), 20, 30), 2, 2),
        ({"self_ensemble": True}, ((8,), 20, 30), 1, 4),
        ({"overlap": 7}, ((16,), 20, 30), 9, 2),
    ],
)
def test_time_grows_with_what_there_is_to_do(changes, size, sampling, decoding):
    result = Work(replace(PLAIN, **changes), *size).scaled(PIECE, SECONDS)
    assert result[SAMPLING] == pytest.approx(10 * sampling)
    assert result[DECODING] == pytest.approx(6 * decoding)


def test_flow_is_counted_by_pairs_where_there_is_any():
    piece, seconds = Work(MOVING, (2,), 20, 30), {FLOW: 0.5}
    assert Work(MOVING, (5, 5), 40, 30).scaled(piece, seconds)[FLOW] == pytest.approx(8 * 0.5 * 2)
    assert Work(PLAIN, (5, 5), 40, 30).scaled(piece, seconds)[FLOW] == 0
    assert Work(MOVING, (5, 5), 40, 30).scaled(PIECE, {FLOW: 0.0})[FLOW] == 0


def test_the_larger_of_pass_and_group_counts():
    result = Estimate(PIECE, SECONDS, 3 << 30, 5 << 30, held_bytes=1 << 30, disk_bytes=99)
    on_gpu, on_cpu = result.to_text(GPU), result.to_text(torch.device("cpu"))
    assert "memory of the GPU 5 GiB, RAM 1 GiB, disk 99 bytes" in on_gpu
    assert "About RAM 6 GiB" in on_cpu and "GPU" not in on_cpu


def test_the_text_says_that_it_is_an_estimate():
    work = Work(MOVING, (100, 50), 20, 30)
    stages = {SAMPLING: 2.0, DECODING: 3.0, FLOW: 15.0}
    text = Estimate(work, stages, 0, 0, 0, 0).to_text(GPU)
    assert text.startswith("Estimate for all 150 frames of 30x20 in 2 scenes: 20 s, ")
    assert f"({work.passes} passes)" in text and f"({len(work.groups)} groups), flow 15 s" in text


def test_a_scene_without_frames_is_refused():
    with pytest.raises(InputError):
        Work(PLAIN, (0,), 20, 30)


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


PARAMS = LongVideoParams(steps=10, guidance=6.0, propagation_steps="last 2", frames_per_group=3)
# Segments of 8 with an overlap of 2: 3 of the 20 frames, 1 of the 8.
SCENES, SEGMENTS = [20, 8], 4
RUN = Work(PARAMS, SCENES, 16, 24)


class Engine:
    """Only what a forecast asks."""

    device = GPU

    def memory(self, stage, frames, h, w):
        assert (frames, h, w) == ({"sample": 8, "decode": 3}[stage], 16, 24)
        return {"sample": 5 << 30, "decode": 3 << 30}[stage]

    def room(self):
        return 1 << 30


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(estimate, "perf_counter", lambda: now[0])
    return now


def piece_of(guess: Forecast, clock, stage: str, frames: int, seconds: float) -> None:
    with guess.timed(stage, frames):
        clock[0] += seconds


def test_time_and_memory_follow_from_the_first_pieces(clock):
    told: list[str] = []
    guess = Forecast(RUN, Engine(), told.append)  # pyright: ignore[reportArgumentType]
    guess.disk_bytes = 1 << 20
    piece_of(guess, clock, SAMPLING, 8, 100.0)  # loads the model: not counted
    for _ in range(3):
        assert told == []
        piece_of(guess, clock, SAMPLING, 8, 2.0)
    assert len(told) == 1 and told[0].endswith("Not measured yet, only guessed: decoding, flow.")
    assert "decoding 0.0 s" not in told[0] and "flow 0.0 s" not in told[0]
    assert guess.estimate is not None
    assert guess.estimate.stages[SAMPLING] == pytest.approx(2.0 * 10 * SEGMENTS)
    piece_of(guess, clock, FLOW, 1, 0.5)
    piece_of(guess, clock, DECODING, 3, 1.5)
    for _ in range(5):
        piece_of(guess, clock, DECODING, 3, 9.0)
        piece_of(guess, clock, SAMPLING, 8, 2.0)
    assert len(told) == 2, "it is told once"
    whole = guess.estimate
    assert whole.stages[DECODING] == pytest.approx(0.5 * sum(SCENES))
    assert whole.stages[FLOW] == pytest.approx(0.5 * (sum(SCENES) - len(SCENES)))
    assert whole.seconds == pytest.approx(80 + 14 + 13)
    assert whole.pass_bytes == 5 << 30 and whole.disk_bytes == 1 << 20
    assert "1:47 min" in told[1] and "memory of the GPU 5 GiB" in told[1]


def test_a_run_of_one_pass_gets_an_estimate(clock):
    told: list[str] = []
    work = replace(RUN, params=replace(PARAMS, steps=1), scenes=[8])
    guess = Forecast(work, Engine(), told.append)  # pyright: ignore[reportArgumentType]
    piece_of(guess, clock, SAMPLING, 8, 100.0)
    piece_of(guess, clock, DECODING, 3, 1.5)
    assert len(told) == 1 and "only guessed: sampling" in told[0]


def test_a_gpu_holds_what_it_reads_and_copies_ahead(clock, monkeypatch):
    def held(device: torch.device) -> int:
        monkeypatch.setattr(Engine, "device", device)
        guess = Forecast(RUN, Engine(), lambda _: None)  # pyright: ignore[reportArgumentType]
        for _ in range(4):
            piece_of(guess, clock, SAMPLING, 8, 2.0)
        assert guess.estimate is not None
        return guess.estimate.held_bytes

    pairs = pairs_at_once(GPU, 16, 24, Engine().room())
    assert pairs > 1
    frame = 4 * 3 * 16 * 24
    more = BATCHES_AHEAD * pairs * frame + 2 * 3 * 16 * frame  # two groups of 3 frames of 4x
    assert held(GPU) == held(torch.device("cpu")) + more


def test_a_resumed_run_that_decodes_first_says_nothing_it_does_not_know(clock):
    told: list[str] = []
    guess = Forecast(RUN, Engine(), told.append)  # pyright: ignore[reportArgumentType]
    piece_of(guess, clock, DECODING, 3, 1.5)
    assert told == [] and guess.estimate is None
    for _ in range(4):
        piece_of(guess, clock, SAMPLING, 8, 2.0)
    piece_of(guess, clock, DECODING, 3, 1.5)
    assert guess.estimate is not None
    assert guess.estimate.stages[DECODING] == pytest.approx(0.5 * sum(SCENES))
