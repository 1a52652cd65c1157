"""Writes to a real MLflow server that is killed, started again, or never comes back."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
import time

import pytest
from mlflow import MlflowClient
from servers import free_port, mlflow_ui
from test_tracker import report

from sweeps.states import Outcome, State
from sweeps.tracking import Tracker
from sweeps.tracking.write_queue import WriteQueue, is_away

pytestmark = pytest.mark.slow


def silent(kind: str, text: str) -> None:
    """No warning is of interest."""


def steps_of(tracker: Tracker, key: str) -> list[int]:
    history = MlflowClient(tracker.uri).get_metric_history(tracker.run_id(key), "m0")
    return [metric.step for metric in history]


def test_server_that_is_away_for_a_while_gets_everything_once(tmp_path, caplog):
    port, store = free_port(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    with mlflow_ui(port, store) as server:
        tracker = Tracker(f"http://127.0.0.1:{port}", "sweeps")
        for key in "abc":
            tracker.start(key, key, {"lr": 1}, {"sweep.id": "x", "sweep.trial": key})
            tracker.log(key, report(range(1, 4)))
        tracker.flush()
        os.killpg(server.pid, signal.SIGKILL)
    with caplog.at_level(logging.WARNING, logger="sweeps.tracking"):
        for key in "abc":
            tracker.log(key, report(range(4, 9)))
        tracker.start("d", "d", {}, {"sweep.id": "x", "sweep.trial": "d"})
        tracker.log("d", report(range(1, 9)))
        time.sleep(3)  # several attempts
        assert len(caplog.records) == 1
        assert "does not answer" in caplog.records[0].message
    with mlflow_ui(port, store):
        for key in "abcd":
            tracker.end(key, Outcome(State.COMPLETED))
        assert tracker.close() == 0
        for key in "abcd":
            assert steps_of(tracker, key) == list(range(1, 9))
        runs = MlflowClient(tracker.uri).search_runs([tracker.experiment_id])
        assert sorted(run.info.run_name for run in runs) == list("abcd")
        assert {run.info.status for run in runs} == {"FINISHED"}


def test_server_that_never_comes_back_is_given_up_in_time(tmp_path):
    port = free_port()
    with mlflow_ui(port, f"sqlite:///{tmp_path / 'mlflow.db'}"):
        tracker = Tracker(f"http://127.0.0.1:{port}", "sweeps")
    tracker.start("a", "a", {}, {})
    tracker.log("a", report(range(1, 4)))
    began = time.monotonic()
    assert tracker.close(2) > 0
    assert time.monotonic() - began < 10


def test_order_of_writes_is_kept_while_one_is_tried_again():
    done: list[int] = []
    queue = WriteQueue("x", silent)

    def fails_twice() -> None:
        done.append(0)
        if len(done) < 3:
            raise ConnectionError

    queue.put(fails_twice)
    queue.put(lambda: done.append(1))
    queue.flush(30)
    assert done == [0, 0, 0, 1]
    assert queue.close(time.monotonic() + 30) == 0


def test_what_is_wrong_is_not_tried_again():
    done: list[int] = []
    queue = WriteQueue("x", silent)

    def wrong() -> None:
        done.append(0)
        raise ValueError

    queue.put(wrong)
    assert queue.close(time.monotonic() + 30) == 1
    assert done == [0]


def test_what_was_buffered_is_committed_after_the_writes_and_is_missing_if_that_fails():
    done: list[str] = []
    queue = WriteQueue("x", silent, lambda: done.append("commit"))
    queue.put(lambda: done.append("write"))
    queue.put(lambda: queue.put_later("run", lambda: done.append("send")))
    queue.flush(30)
    assert done == ["write", "send", "commit"]
    assert queue.close(time.monotonic() + 30) == 0

    def locked() -> None:
        raise sqlite3.OperationalError("database is locked")

    queue = WriteQueue("x", silent, locked)
    queue.put(lambda: done.append("write"))
    assert queue.close(time.monotonic() + 1) > 0


def test_no_write_begins_in_a_pause_even_if_one_was_too_slow_to_wait_for():
    begun, go_on, slow = [], threading.Event(), threading.Event()

    def slow_write() -> None:
        slow.set()
        go_on.wait(60)

    queue = WriteQueue("x", silent)
    queue.put(slow_write)
    queue.put(lambda: begun.append("next"))
    slow.wait(60)
    with queue.paused(0.01):
        go_on.set()
        time.sleep(0.3)
        assert begun == []
    queue.flush(60)
    assert begun == ["next"]


def test_a_word_in_an_address_does_not_make_an_error_a_lock():
    refused = RuntimeError("https://blocked.example/locked-down: forbidden")
    assert not is_away(refused)
    assert is_away(RuntimeError("(sqlite3.OperationalError) database is locked"))
