"""Items are made on one thread while others are used on another."""

from __future__ import annotations

import threading

import pytest

from uav_core.longvideo.ahead import AbandonedError, used_behind


class Broken(BaseException):
    """As a cancel is in some ComfyUIs."""


def test_items_are_used_in_order_on_another_thread():
    makers, users = set(), set()

    def made():
        for i in range(50):
            makers.add(threading.get_ident())
            yield i

    def use(items):
        used = []
        for item in items:
            users.add(threading.get_ident())
            used.append(item)
        return used

    assert used_behind(use, made(), 3) == list(range(50))
    assert makers == {threading.get_ident()} and len(users) == 1 and not makers & users


def test_no_more_is_made_than_there_is_room():
    made, free = [], threading.Event()

    def items():
        for i in range(10):
            made.append(i)
            if i == 4:  # one in use, three waiting, one that waits for room
                free.set()
            yield i

    def use(given):
        first = next(given)
        assert free.wait(30)
        assert len(made) == 5, "with the first in use and three waiting, the fifth has no room"
        return [first, *given]

    assert used_behind(use, items(), 3) == list(range(10))


@pytest.mark.parametrize("error", [ValueError, Broken])
def test_a_failure_of_the_maker_ends_the_user_first(error):
    seen = []

    def items():
        yield 1
        raise error("making")

    def use(given):
        try:
            return list(given)
        except AbandonedError:
            seen.append("ended")
            raise

    with pytest.raises(error, match="making"):
        used_behind(use, items(), 2)
    assert seen == ["ended"]


@pytest.mark.parametrize("error", [ValueError, Broken])
def test_a_failure_of_the_user_stops_the_maker(error):
    made = []

    def items():
        for i in range(10_000):
            made.append(i)
            yield i

    def use(given):
        next(given)
        raise error("using")

    with pytest.raises(error, match="using"):
        used_behind(use, items(), 2)
    assert len(made) < 10
