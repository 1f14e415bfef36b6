"""No encoder leaves a thread of ours above all others (SVT-AV1 does, run by root)."""

from __future__ import annotations

import os
import threading

import pytest
import torch

from uav_core.video import EncodeParams, encode_part
from uav_core.video.writing.choices import CODECS, available_codecs, usual_priority

TASKS = "/proc/self/task"


@pytest.fixture(autouse=True)
def usual():
    """Skips where nothing can take real-time priority; leaves the usual one behind."""
    try:
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        pytest.skip("this user, or this system, has no real-time priorities")
    os.sched_setscheduler(0, *before)
    yield before[0]
    os.sched_setscheduler(0, *before)


def policies() -> set[int]:
    """Of all threads of this process."""
    found = set()
    for task in os.listdir(TASKS):
        try:
            found.add(os.sched_getscheduler(int(task)))
        except ProcessLookupError:
            continue
    return found


def test_it_is_taken_back_from_the_caller_and_its_threads(usual):
    stop = threading.Event()
    with usual_priority():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        thread = threading.Thread(target=stop.wait)
        thread.start()
        assert os.SCHED_FIFO in policies()
    try:
        assert policies() == {usual}
    finally:
        stop.set()
        thread.join()


def test_after_an_error_too(usual):
    with pytest.raises(RuntimeError), usual_priority():
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        raise RuntimeError
    assert policies() == {usual}


def test_looking_for_encoders_leaves_it_alone(usual):
    available_codecs.cache_clear()
    assert available_codecs()
    assert policies() == {usual}


@pytest.mark.parametrize("codec", CODECS)
def test_encoding_leaves_it_alone(usual, codec, tmp_path):
    if codec not in available_codecs():
        pytest.skip(f"no encoder of {codec}")
    seen = set()

    def frames():
        for _ in range(3):
            yield torch.zeros(3, 64, 64)
            seen.update(policies())

    params = EncodeParams(codec, CODECS[codec].containers[0])
    encode_part(tmp_path / "part.mkv", frames(), params, (64, 64))
    assert seen | policies() == {usual}
