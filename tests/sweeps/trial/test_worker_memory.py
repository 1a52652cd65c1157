"""Free memory and waiting for it, with memory that another process really holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from waiting import PATIENCE, wait_until

from sweeps.trial.worker import free_memory, wait_for_memory

MB = 2**20
HOLD = """
import sys
held = bytearray(int(sys.argv[1]))
for page in range(0, len(held), 4096):
    held[page] = 1
print("held", flush=True)
sys.stdin.readline()
del held
print("released", flush=True)
sys.stdin.readline()
"""


class Holder:
    """A process that holds `size` bytes, every page of them written, until it is told to release them."""

    def __init__(self, size: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "held"

    def resident(self) -> int:
        """Bytes that it has in main memory."""
        return int(psutil.Process(self._process.pid).memory_info().rss)

    def release(self) -> None:
        """Returns when it has."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self._line() == "released"

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=PATIENCE)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def holding(size: int) -> Iterator[Holder]:
    holder = Holder(size)
    try:
        yield holder
    finally:
        holder.stop()


def test_waits_until_memory_is_given_back():
    with holding(300 * MB) as holder:
        most = holder.resident()
        found: list[int] = []

        def free() -> int:
            if len(found) == 2:
                holder.release()
            found.append(most - holder.resident())
            return found[-1]

        assert wait_for_memory(free, 200 * MB, seconds=PATIENCE, every=0.01)
    assert all(size < 200 * MB for size in found[:2])
    assert len(found) == 3


def test_gives_up_when_it_does_not_come():
    found: list[int] = []

    def free() -> int:
        found.append(free_memory())
        return found[-1]

    assert not wait_for_memory(free, 2**50, seconds=0.2, every=0.05)
    assert len(found) > 1


def test_memory_that_is_there_is_not_waited_for():
    asked: list[int] = []

    def free() -> int:
        asked.append(1)
        return 5

    assert wait_for_memory(free, 5, seconds=30, every=30)
    assert len(asked) == 1


def test_memory_that_a_process_takes_is_free_no_more():
    assert 0 < free_memory() <= psutil.virtual_memory().total
    assert any(falls() for _ in range(3))  # other work may release as much at the same moment


def falls() -> bool:
    """Whether free memory falls while a process holds 1.5 GB; if it does, it must rise again.

    Both by a third of that at least: the kernel counts pages that it has at hand for the next
    process, up to some hundred MB, neither as free nor as used.
    """
    before = free_memory()
    with holding(1500 * MB):
        held = free_memory()
    if before - held < 500 * MB:
        return False
    wait_until(lambda: free_memory() - held > 500 * MB)
    return True
