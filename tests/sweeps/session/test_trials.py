"""The one place that knows how a trial ended, and who is told. Tests play the part of Ray Tune."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import small_spec
from session_parts import Driver, exploded, report_of

from sweeps.search.promotion import Idle
from sweeps.search.stopping import SweepStopped
from sweeps.states import State
from sweeps.study.store import JournalStore
from sweeps.study.study import read_trials
from sweeps.trial.failures import ALONE_TOO
from sweeps.trial.watchdog import STALL

FILE = Path("study.journal")


def driver(**changes: Any) -> Driver:
    return Driver(small_spec(**changes), JournalStore(FILE))


def test_end_is_told_once_with_outcome_value_and_time():
    session = driver()
    request = session.start()
    session.report(0, report_of(1, 0.4))
    time.sleep(0.02)
    session.end(0, report_of(2, 0.5, "final"))
    (end,) = session.told.ends
    assert (end.number, end.outcome.state, end.value) == (0, State.COMPLETED, 0.5)
    assert end.report is not None
    assert end.report.epoch == 2
    (record,) = read_trials(FILE)
    assert record.seconds == end.seconds >= 0.02
    assert record.value == end.value
    assert session.told.starts == [request]
    assert [number for number, _ in session.told.reports] == [0, 0]


def test_study_knows_of_an_end_before_the_callbacks_do():
    session = driver()
    session.start()
    seen = []
    session.told.on_end = lambda end: seen.append(session.trial(end.number).state)
    session.end(0, report_of(1, 0.5, "final"))
    assert [state.is_finished() for state in seen] == [True]


def test_trial_that_no_worker_began_with_is_interrupted_but_told_to_nobody():
    session = driver()
    assert session.trials.next_request() is not Idle.DONE
    assert session.trials.close() == 1
    assert session.told.ends == []
    assert read_trials(FILE)[0].state is State.INTERRUPTED


def test_restart_of_a_worker_is_no_second_start():
    session = driver()
    request = session.start()
    session.trials.on_start(replace(request, last_try=True))
    assert len(session.told.starts) == 1


@pytest.mark.parametrize(
    ("retried", "crash", "reason"),
    [
        ("", "", "the worker process raised or died; see the log of the trial"),
        ("", "out of memory: the kernel killed it", "out of memory: the kernel killed it"),
        ("out of memory: a", "out of memory: b", f"out of memory: b{ALONE_TOO}"),
        (
            "out of memory: a",
            "died",
            "the worker process died when retried alone, the first time with",
        ),
    ],
)
def test_crash_is_explained(retried, crash, reason):
    session = driver()
    request = session.start()
    if retried:
        session.trials.on_retry(replace(request, retried=retried))
    session.trials.on_end(0, crash)
    (end,) = session.told.ends
    assert end.outcome.state is State.FAILED
    assert end.outcome.reason.startswith(reason)


def test_watchdog_explains_a_crash():
    session = driver(stall_minutes=3)
    request = session.start()
    run_dir = session.context.run_dir(request.folder)
    run_dir.mkdir(parents=True)
    (run_dir / STALL).write_text("Thread 0x1")
    session.trials.on_end(0, "the worker process died twice")
    assert session.told.ends[0].outcome.reason.startswith("reported nothing for 3 minutes")


def test_last_report_decides_the_outcome():
    session = driver(trials=3)
    for _ in range(3):
        session.start()
    session.end(0, exploded(1))
    session.pause(1, 2, 0.4)
    session.end(2, report_of(2, 0.4))
    outcomes = [end.outcome for end in session.told.ends]
    assert [o.state for o in outcomes] == [State.INFEASIBLE, State.PAUSED, State.FAILED]
    assert [o.reason for o in outcomes] == [
        *("bang", "at epoch 2"),
        "ended without a last report, at epoch 2",
    ]


def test_running_trials_count_against_the_budget():
    spec = {"budget": {"gpu_hours": 1e-9}, "resources": {"gpus": 1}}
    session = driver(**spec)
    session.trials.poll()
    session.start()
    time.sleep(0.01)
    with pytest.raises(SweepStopped):
        session.trials.poll()
