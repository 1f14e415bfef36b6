"""What a run is said to take, on a clock that the test turns."""

from __future__ import annotations

import pytest

from uav_core.longvideo import LongVideoParams, forecast
from uav_core.longvideo.course import DECODING, FLOW, SAMPLING
from uav_core.longvideo.forecast import Forecast

PARAMS = LongVideoParams(steps=10, guidance=6.0, propagation_steps="last 2", frames_per_group=3)
# Segments of 8 with an overlap of 2: 3 of the 20 frames, 1 of the 8.
SCENES, SEGMENTS = [20, 8], 4


class Engine:
    """Only what a forecast asks."""

    def memory(self, frames, group, h, w):
        assert (frames, group, h, w) == (8, 3, 16, 24)
        return 5 << 30, 3 << 30

    def device_name(self):
        return "GPU"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(forecast, "perf_counter", lambda: now[0])
    return now


def work(guess: Forecast, clock, stage: str, frames: int, seconds: float) -> None:
    with guess.timed(stage, frames):
        clock[0] += seconds


def test_time_and_memory_follow_from_the_first_pieces(clock):
    told: list[str] = []
    guess = Forecast(PARAMS, SCENES, (16, 24), Engine(), told.append)  # pyright: ignore[reportArgumentType]
    guess.disk_bytes = 1 << 20
    work(guess, clock, SAMPLING, 8, 100.0)  # loads the model: not counted
    for _ in range(3):
        assert told == []
        work(guess, clock, SAMPLING, 8, 2.0)
    assert len(told) == 1 and told[0].endswith("Decoding is not timed yet.")
    assert guess.estimate is not None
    assert guess.estimate.sampling_seconds == pytest.approx(2.0 * 10 * SEGMENTS)
    work(guess, clock, FLOW, 1, 0.5)
    work(guess, clock, DECODING, 3, 1.5)
    for _ in range(5):
        work(guess, clock, DECODING, 3, 9.0)
        work(guess, clock, SAMPLING, 8, 2.0)
    assert len(told) == 2, "it is told once"
    whole = guess.estimate
    assert whole.decoding_seconds == pytest.approx(0.5 * sum(SCENES))
    assert whole.flow_seconds == pytest.approx(0.5 * (sum(SCENES) - len(SCENES)))
    assert whole.seconds == pytest.approx(80 + 14 + 13)
    assert whole.device_bytes == 5 << 30 and whole.disk_bytes == 1 << 20
    assert "1:47 min" in told[1] and "memory of the GPU 5 GiB" in told[1]


def test_a_resumed_run_that_decodes_first_says_nothing_it_does_not_know(clock):
    told: list[str] = []
    guess = Forecast(PARAMS, SCENES, (16, 24), Engine(), told.append)  # pyright: ignore[reportArgumentType]
    work(guess, clock, DECODING, 3, 1.5)
    assert told == [] and guess.estimate is None
    for _ in range(4):
        work(guess, clock, SAMPLING, 8, 2.0)
    work(guess, clock, DECODING, 3, 1.5)
    assert guess.estimate is not None
    assert guess.estimate.decoding_seconds == pytest.approx(0.5 * sum(SCENES))
