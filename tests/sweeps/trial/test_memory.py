"""Waiting for memory, with real numbers."""

from __future__ import annotations

import threading
import time

import psutil
from waiting import PATIENCE

from sweeps.trial.memory import await_room, free_memory


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def test_waits_until_memory_is_given_back() -> None:
    held = [bytearray(300 * 2**20)]
    most = resident()
    began = time.monotonic()
    timer = threading.Timer(0.4, held.clear)
    timer.start()
    assert await_room(lambda: most - resident(), 200 * 2**20, seconds=PATIENCE, every=0.05)
    assert time.monotonic() - began >= 0.4
    assert not held


def test_gives_up_when_it_does_not_come() -> None:
    held = bytearray(300 * 2**20)
    most = resident()
    assert not await_room(lambda: most - resident(), 2**40, seconds=0.2, every=0.05)
    assert len(held) == 300 * 2**20


def test_room_that_is_there_is_not_waited_for() -> None:
    asked = []

    def free() -> int:
        asked.append(time.monotonic())
        return 5

    assert await_room(free, 5, seconds=30, every=30)
    assert len(asked) == 1


def test_memory_that_a_process_takes_is_free_no_more() -> None:
    total = psutil.virtual_memory().total
    assert 0 < free_memory() <= total
