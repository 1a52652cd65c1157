"""A process that runs trials one after another."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from waiting import PATIENCE, wait_until

from fsdet.report import Report
from sweeps.trial import worker
from sweeps.trial.worker import (
    EVALUATION_EPOCHS,
    MEMORY_BYTES,
    STEP_SECONDS,
    Costs,
    free_memory,
    wait_for_memory,
)

TRIALS = """
import json, sys
from pathlib import Path
from sweeps.config import SweepSpec
from sweeps.trial.messages import TrialRequest
from sweeps.trial.trial import TrialContext, run_trial

fixed = {"stage": 2, "resume": sys.argv[1], "train_scenes": 48, "n_way": 4, "n_query": 1}
fixed |= {"batch_size": 1, "gradient_accumulation": 1, "n_episodes": 3, "epochs": 2}
fixed |= {"eval_episodes": 2, "threads": 1}
spec = SweepSpec(name="a", space={"lr": {"low": 1e-5, "high": 1}}, fixed=fixed)
for number in map(int, sys.argv[2:]):
    lr = [1e-3, 0.9, 3e-4][number]
    reports = []
    given = {"lr": lr}
    request = TrialRequest(number, f"{number:04d}", str(number), given, spec.config(given))
    run_trial(TrialContext(spec.objective, Path.cwd(), "x"), request, reports.append)
    reports = [[r.epoch, r.step, r.metrics, r.phase] for r in reports]
    Path(f"{number}.json").write_text(json.dumps(reports))
"""
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


@pytest.mark.slow
def test_reused_worker_gives_what_a_fresh_one_gives_to_the_last_bit(tmp_path):
    root = Path(__file__).resolve().parents[3]
    checkpoint = str(root / "fsdet" / "checkpoints" / "stage1_openmoji.pt")
    for folder, numbers in (("reused", ("0", "1", "2")), ("fresh", ("2",))):
        (tmp_path / folder).mkdir()
        subprocess.run(
            [sys.executable, "-c", TRIALS, checkpoint, *numbers],
            cwd=tmp_path / folder,
            check=True,
            timeout=PATIENCE,
        )
    for file in ("2.json", "0002/steps.jsonl"):
        reused, fresh = (tmp_path / folder / file for folder in ("reused", "fresh"))
        assert reused.read_bytes() == fresh.read_bytes()
        assert fresh.stat().st_size > 300


def after(costs: Costs, step: int, evaluation_seconds: float = 0.0) -> dict[str, float]:
    """The costs of a trial of ten steps an epoch."""
    report = Report("running", step, step // 10, {}, {}, evaluation_seconds=evaluation_seconds)
    return costs.after(report)


def test_memory_of_an_earlier_trial_is_not_counted():
    big = bytearray(400 * 2**20)
    first = Costs(resumed=False)
    del big
    later = Costs(resumed=False)
    assert after(later, 1)[MEMORY_BYTES] < after(first, 1)[MEMORY_BYTES] + 1e6
    small = after(Costs(resumed=False), 1)[MEMORY_BYTES]
    again = bytearray(400 * 2**20)
    grown = after(later, 2)[MEMORY_BYTES]
    assert grown - small > 3e8
    del again


def test_steps_before_a_trial_went_on_are_not_counted():
    costs = Costs(resumed=True)
    assert STEP_SECONDS not in after(costs, 100)
    time.sleep(0.05)
    assert after(costs, 101)[STEP_SECONDS] >= 0.05


def test_price_of_an_evaluation_is_told_in_epochs():
    costs = Costs(resumed=False)
    time.sleep(0.3)
    found = after(costs, 20, evaluation_seconds=0.2)  # two epochs in 0.1 s or a little more
    seconds = 20 * found[STEP_SECONDS]
    assert found[EVALUATION_EPOCHS] == pytest.approx(0.2 / ((seconds - 0.2) / 2))


def test_worker_that_grows_leaks(monkeypatch):
    monkeypatch.setattr(worker, "LEAK", 100 * 2**20)
    monkeypatch.setattr(worker, "_idle", [])
    assert not worker.has_leaked()
    assert not worker.has_leaked()
    kept = bytearray(300 * 2**20)
    assert worker.has_leaked()
    del kept
    assert not worker.has_leaked()


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


@pytest.mark.slow
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
