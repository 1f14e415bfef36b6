"""How far a run is said to be."""

from __future__ import annotations

from itertools import pairwise

import pytest

from uav_core.longvideo.course import DECODING, FLOW, SAMPLING, Course

WHOLE = {SAMPLING: 100, DECODING: 20, FLOW: 10}
COST = {SAMPLING: 2.0, DECODING: 30.0, FLOW: 0.5}
"""Seconds of a frame; far from what is guessed."""


def pieces():
    """Stage and frames in the order of a run."""
    for _ in range(2):
        yield from [(SAMPLING, 5)] * 10
        yield from [(FLOW, 1)] * 5
        yield from [(DECODING, 5)] * 2


def test_it_goes_on_with_every_piece_and_never_back():
    course, seen = Course(WHOLE), [0.0]
    for stage, frames in pieces():
        course.did(stage, frames, COST[stage] * frames)
        seen.append(course.share)
    assert all(before < after < 1 for before, after in pairwise(seen))
    assert seen[-1] > 0.9, "what is ahead of the last piece is no more than a part of it"
    assert course.seconds_left == 0


def test_once_all_is_measured_the_rest_takes_its_true_share():
    course = Course(WHOLE)
    half = list(pieces())[:17]
    for stage, frames in half:
        course.did(stage, frames, COST[stage] * frames)
    left = 50 * 2.0 + 10 * 30.0 + 5 * 0.5
    assert course.seconds_left == pytest.approx(left)
    before = course.share
    course.did(SAMPLING, 50, 100.0)
    assert (course.share - before) / (1 - before) == pytest.approx(100 / left)


def test_nothing_is_said_of_the_time_before_anything_is_timed():
    course = Course(WHOLE)
    assert course.seconds_left is None
    course.did(SAMPLING, 5, None)  # the first pass, which loads the model
    assert course.seconds_left is None and 0 < course.share < 0.1
    course.did(SAMPLING, 5, 10.0)
    assert course.seconds_left == pytest.approx(90 * 2.0 + 20 * 12.0 + 10 * 6.0)


def test_what_earlier_and_other_runs_did_counts():
    course = Course(WHOLE)
    course.did_elsewhere(0.0)
    assert course.share == 0
    course.did_elsewhere(0.25)
    assert course.share == pytest.approx(0.25)
    course.did(SAMPLING, 1, 2.0)
    before = course.share
    course.did_elsewhere(0.5)
    assert course.share > before and course.left[DECODING] == 5


def test_what_is_sampled_again_is_ahead_again():
    course = Course(WHOLE)
    course.did_elsewhere(0.5)
    course.again(0.1)
    assert course.left == {SAMPLING: 60, DECODING: 10, FLOW: 6}
    assert course.share == pytest.approx(0.5), "it stays where it is"


def test_more_than_was_counted_still_goes_on():
    course = Course(WHOLE)
    for _ in range(40):
        before = course.share
        course.did(SAMPLING, 10, 20.0)
        course.did(DECODING, 5, 5.0)
        assert before <= course.share <= 1
