"""The tracker against a real MLflow database."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from waiting import wait_until

from sweeps.config.sections import TrackingSpec
from sweeps.errors import SweepError
from sweeps.states import Outcome, State
from sweeps.tracking import Tracker, sqlite_file, tracking_uri
from sweeps.trial.messages import TrialReport


def report(steps: range, keys: int = 1, metrics: dict[str, float] | None = None) -> TrialReport:
    """A report with `keys` metrics a step."""
    numbers = np.array(steps, np.float64)
    history = {f"m{key}": numbers * 2 for key in range(keys)}
    return TrialReport(
        "running", steps[-1], 1, metrics=metrics or {}, history={"step": numbers, **history}
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One for all tests: making it takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}"


@pytest.fixture
def tracker(database: str, request: pytest.FixtureRequest) -> Tracker:
    """On an experiment of the test's own."""
    return Tracker(database, request.node.name)


def test_more_values_than_a_call_takes_are_all_written(tracker):
    tracker.start("a", "a", {f"p{i}": i for i in range(130)}, {})
    tracker.log("a", report(range(1, 301), keys=8))
    tracker.end("a", Outcome(State.COMPLETED))
    tracker.close()
    client, run_id = MlflowClient(tracker.uri), tracker.run_id("a")
    for key in ("m0", "m7"):
        history = client.get_metric_history(run_id, key)
        assert [m.value for m in history] == [2.0 * step for step in range(1, 301)]
    assert len(client.get_run(run_id).data.params) == 130


def test_values_that_come_quickly_are_written_in_one_transaction(tracker, monkeypatch):
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr("sweeps.tracking.write_queue.DELAY", 3600.0)
    monkeypatch.setattr("sweeps.tracking.writer.sqlite3.connect", traced)
    for key in "ab":
        tracker.start(key, key, {"lr": 1}, {})
    for step in range(1, 41):
        for key in "ab":
            tracker.log(key, report(range(step, step + 1)))
    for key in "ab":
        tracker.end(key, Outcome(State.COMPLETED))
    tracker.close()
    assert statements.count("COMMIT") == 1
    for key in "ab":
        history = MlflowClient(tracker.uri).get_metric_history(tracker.run_id(key), "m0")
        assert [m.step for m in history] == list(range(1, 41))


def test_values_are_there_before_their_run_has_ended(tracker, monkeypatch):
    monkeypatch.setattr("sweeps.tracking.write_queue.DELAY", 0.05)
    tracker.start("a", "a", {}, {})
    tracker.log("a", report(range(1, 4)))
    client = MlflowClient(tracker.uri)

    def written() -> int:
        run_id = tracker.run_id("a")
        return len(client.get_metric_history(run_id, "m0")) if run_id else 0

    wait_until(lambda: written() == 3)
    tracker.close()


def test_steps_that_are_repeated_are_written_once(tracker):
    tracker.start("a", "a", {}, {})
    tracker.log("a", report(range(1, 6)))
    tracker.log("a", report(range(4, 9)))
    tracker.close()
    history = MlflowClient(tracker.uri).get_metric_history(tracker.run_id("a"), "m0")
    assert [m.step for m in history] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_is_not_finite_is_left_out_and_counted(tracker):
    tracker.start("a", "a", {}, {})
    norms = np.array([1.0, math.inf, math.nan])
    history = {"step": np.array([1.0, 2, 3]), "grad/norm": norms}
    tracker.log("a", TrialReport("running", 3, 1, history=history))
    tracker.close()
    metrics = MlflowClient(tracker.uri).get_run(tracker.run_id("a")).data.metrics
    assert metrics["grad/norm"] == 1.0
    assert metrics["grad/nonfinite"] == 2


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (State.PRUNED, "KILLED"),
        (State.INFEASIBLE, "FAILED"),
        (State.FAILED, "FAILED"),
        (State.INTERRUPTED, "KILLED"),
        (State.PAUSED, "SCHEDULED"),
    ],
)
def test_status_of_a_run_is_truthful(tracker, state, status):
    tracker.start("a", "a", {}, {})
    tracker.end("a", Outcome(state, "because"))
    tracker.close()
    run = MlflowClient(tracker.uri).get_run(tracker.run_id("a"))
    assert run.info.status == status
    assert run.data.tags["state"] == state
    assert run.data.tags["reason"] == "because"


def test_failed_write_is_one_warning(tracker, caplog):
    with caplog.at_level(logging.WARNING, logger="sweeps.tracking"):
        for _ in range(3):
            tracker.end("never started", Outcome(State.COMPLETED))
        tracker.start("a", "a", {}, {})
        tracker.close()
    assert tracker.run_id("a") is not None
    assert len([r for r in caplog.records if "could not write" in r.message]) == 1


def test_runs_are_linked_once_and_only_to_runs_that_exist(tracker):
    for key in "ab":
        tracker.start(key, key, {}, {})
    tracker.describe("a", "seen")
    for _ in range(2):
        tracker.link("a", "b", "the other")
    tracker.link("a", "never begun", "nobody")
    tracker.close()
    note = MlflowClient(tracker.uri).get_run(tracker.run_id("a")).data.tags["mlflow.note.content"]
    place = f"#/experiments/{tracker.experiment_id}/runs/{tracker.run_id('b')}"
    assert note == f"seen\n- [the other]({place})"


def test_store_that_cannot_be_opened_is_told_without_its_password():
    with pytest.raises(SweepError) as caught:
        Tracker("postgresql://me:secret@127.0.0.1:1/x", "test")
    assert "secret" not in str(caught.value)
    assert "tracking.uri" in str(caught.value)


def test_run_that_goes_on_holds_everything_once(database):
    first = Tracker(database, "goes on")
    first.start("7", "trial 7", {"a": 1}, {"sweep.id": "x", "sweep.trial": 7})
    first.log("7", report(range(1, 4), metrics={"val/nAP50": 0.1}))
    first.end("7", Outcome(State.INTERRUPTED, "Ctrl-C"))
    first.close()
    second = Tracker(database, "goes on")
    (key, stored), *others = second.stored_runs("x").items()
    assert (key, stored.running, others) == ("7", False, [])
    second.start("7", "trial 7", {"a": 1}, {"state": "running"}, run_id=stored.run_id)
    second.log("7", report(range(1, 4), metrics={"val/nAP50": 0.1}))
    second.log("7", report(range(4, 6), metrics={"val/nAP50": 0.2}))
    second.flush()
    client = MlflowClient(database)
    assert client.get_run(stored.run_id).info.status == "RUNNING"
    second.end("7", Outcome(State.COMPLETED))
    second.close()
    run = client.get_run(stored.run_id)
    assert run.info.status == "FINISHED"
    assert "reason" not in run.data.tags
    assert [m.step for m in client.get_metric_history(stored.run_id, "m0")] == [1, 2, 3, 4, 5]
    values = [m.value for m in client.get_metric_history(stored.run_id, "val/nAP50")]
    assert values == [0.1, 0.2]


@pytest.mark.parametrize("sessions", [1, 2])
def test_run_of_a_trial_that_pauses_twice_holds_everything_once(tracker, sessions):
    run_id = None
    for leg, state in enumerate((State.PAUSED, State.PAUSED, State.COMPLETED)):
        tags = {"sweep.id": "x", "sweep.trial": 7, "state": "running"}
        tracker.start("7", "trial 7", {"a": 1}, tags, run_id=run_id)
        first = max(1, 3 * leg)  # the last step before the pause is repeated
        tracker.log("7", report(range(first, 3 * leg + 4), metrics={"val/nAP50": leg / 10}))
        tracker.flush()
        client = MlflowClient(tracker.uri)
        running = client.get_run(tracker.run_id("7"))
        assert running.info.status == "RUNNING"
        assert running.data.tags["state"] == "running"
        assert running.data.tags.get("reason", "") == ""
        tracker.end("7", Outcome(state, "at epoch 1" if state is State.PAUSED else ""))
        tracker.flush()
        (stored,) = tracker.stored_runs("x").values()
        assert (stored.running, stored.paused) == (False, state is State.PAUSED)
        if sessions == 2:
            tracker.close()
            tracker, run_id = (
                Tracker(tracker.uri, client.get_experiment(running.info.experiment_id).name),
                stored.run_id,
            )
    tracker.close()
    run = client.get_run(stored.run_id)
    assert (run.info.status, run.data.tags.get("reason", "")) == ("FINISHED", "")
    history = client.get_metric_history(stored.run_id, "m0")
    assert [m.step for m in history] == list(range(1, 10))
    values = client.get_metric_history(stored.run_id, "val/nAP50")
    assert [(m.step, m.value) for m in values] == [(3, 0.0), (6, 0.1), (9, 0.2)]


def test_run_that_is_brought_up_to_date_and_goes_on_at_once_holds_everything_once(
    database, monkeypatch
):
    """As after a signal: its last steps are written from the trial's files, and the trial repeats them."""
    first = Tracker(database, "up to date")
    first.start("a", "a", {"lr": 1}, {})
    first.log("a", report(range(1, 4), metrics={"value": 0.1}))
    first.close()
    monkeypatch.setattr("sweeps.tracking.write_queue.DELAY", 3600.0)
    second = Tracker(database, "up to date")
    for reports in ([range(1, 4), range(4, 7)], [range(4, 7), range(7, 10)]):
        second.start("a", "a", {"lr": 1}, {}, run_id=first.run_id("a"))
        for steps in reports:
            second.log("a", report(steps, metrics={"value": steps[-1] / 10}))
        second.end("a", Outcome(State.INTERRUPTED))
    second.close()
    client = MlflowClient(second.uri)
    history = client.get_metric_history(first.run_id("a"), "m0")
    assert [metric.step for metric in history] == list(range(1, 10))
    evaluations = client.get_metric_history(first.run_id("a"), "value")
    assert [metric.step for metric in evaluations] == [3, 6, 9]


def test_store_that_cannot_be_searched_is_told_in_one_line(tmp_path):
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "a")
    with sqlite3.connect(tmp_path / "mlflow.db") as other:
        other.execute("drop table tags")
    with pytest.raises(
        SweepError, match=r"mlflow\.db: cannot be searched for .*; repair"
    ) as caught:
        tracker.stored_runs("x")
    assert "\n" not in str(caught.value)
    tracker.close()


def test_store_whose_making_was_cut_off_is_made_anew(tmp_path):
    (tmp_path / ".mlflow.db.part").write_bytes(b"SQLite format 3, cut off")
    Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "a").close()
    assert sorted(p.name for p in tmp_path.glob("*.db*")) == ["mlflow.db", "mlflow.db.lock"]


@pytest.mark.slow
def test_locked_store_is_waited_for(tracker, caplog):
    tracker.start("a", "a", {}, {})
    tracker.flush()
    other = sqlite3.connect(tracker.uri.removeprefix("sqlite:///"))
    other.execute("BEGIN EXCLUSIVE")
    with caplog.at_level(logging.WARNING, logger="sweeps.tracking"):
        tracker.log("a", report(range(1, 4)))
        time.sleep(7)  # longer than one call waits by itself
        other.rollback()
        tracker.close()
    assert caplog.records == []
    history = MlflowClient(tracker.uri).get_metric_history(tracker.run_id("a"), "m0")
    assert [m.step for m in history] == [1, 2, 3]


def test_store_of_the_yaml_goes_before_that_of_the_environment(
    monkeypatch,
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://a")
    assert tracking_uri(TrackingSpec(uri="http://b")) == "http://b"
    assert tracking_uri(TrackingSpec()) == "http://a"


@pytest.mark.parametrize("name", ["plain", "a?b", "a#b", "a%20b", "a b", "a;b&c=d", "ä"])
def test_working_directory_may_have_any_name(name, tmp_path, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = tracking_uri(TrackingSpec())
    assert sqlite_file(uri) == folder / "mlruns" / "mlflow.db"
    tracker = Tracker(uri, "a")
    (folder / "note.txt").write_text("of a run")
    tracker.start("a", "a", {}, {})
    tracker.end("a", Outcome(State.COMPLETED), [folder / "note.txt"])
    tracker.close()
    artifacts = folder / "mlruns" / "artifacts" / "a"
    assert [path.read_text() for path in artifacts.rglob("note.txt")] == ["of a run"]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in folder.iterdir()} == {"mlruns", "note.txt"}


@pytest.mark.parametrize(
    "uri", ["http://host:80/x", "postgresql://me@host/x", "mlruns", "sqlite://"]
)
def test_only_an_sqlite_store_has_a_file(uri):
    assert sqlite_file(uri) is None


def test_nothing_is_written_while_the_tracker_is_paused_and_everything_afterwards(tracker):
    tracker.start("a", "a", {}, {})
    tracker.log("a", report(range(1, 4)))
    tracker.flush()
    with tracker.paused():
        tracker.log("a", report(range(4, 6)))
        tracker.start("b", "b", {}, {})
        time.sleep(1.5)  # longer than values are buffered
        assert tracker.run_id("b") is None
    tracker.flush()
    for key in "ab":
        tracker.end(key, Outcome(State.COMPLETED))
    assert tracker.close(60) == 0
    history = MlflowClient(tracker.uri).get_metric_history(tracker.run_id("a"), "m0")
    assert [metric.step for metric in history] == [1, 2, 3, 4, 5]
