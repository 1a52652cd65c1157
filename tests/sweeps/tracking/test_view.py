"""The view of a sweep's trials: what the tag holds, and what a real browser shows of it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from mlflow import MlflowClient
from servers import free_port, mlflow_ui
from waiting import PATIENCE

from sweeps.states import Outcome, State
from sweeps.tracking import Tracker, View

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
SILENT = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
SILENT += "--disable-background-networking --disable-component-update"


def view(**changes: object) -> View:
    values = {"name": "mine", "sweep_id": "5f", "parent_run_id": "a1", "settings": ["lr"]}
    return View(**{**values, **changes})


def state_of(found: View) -> dict[str, object]:
    name, value = found.tag(created=7)
    assert name == "mlflow.sharedViewState.5f"
    return json.loads(json.loads(value)["state"])


def test_running_sweep_is_ordered_by_its_objective():
    assert state_of(view())["orderByKey"] == "metrics.`objective`"
    assert not state_of(view())["orderByAsc"]
    assert state_of(view(ascending=True))["orderByAsc"]


def test_ended_sweep_is_ordered_by_rank_whatever_is_better():
    for ascending in (True, False):
        state = state_of(view(ranked=True, ascending=ascending))
        assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`rank`", True)


def test_filter_and_columns_are_those_of_the_sweep():
    state = state_of(view())
    assert state["searchFilter"] == "tags.`mlflow.parentRunId` = 'a1' and tags.`sweep.id` = '5f'"
    assert "params.`lr`" in state["selectedColumns"]
    assert "tags.`reason`" in state["selectedColumns"]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_browser_shows_the_trials_of_this_sweep_best_first(tmp_path):
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", "sweeps")
    tracker.start("", "mine", {}, {})
    tracker.start("other", "of another sweep", {}, {})
    tracker.start("confirm", "of its confirmation", {}, {"sweep.id": "5f.confirm"}, parent="")
    for number, value in enumerate((0.2, 0.9, 0.5)):
        tags = {"sweep.id": "5f"}
        tracker.start(str(number), f"#0{number} seen", {"lr": number}, tags, parent="")
        tracker.add_metrics(str(number), {"objective": value}, 0)
        tracker.end(str(number), Outcome(State.COMPLETED))
    tracker.flush()
    link = tracker.share(view(parent_run_id=tracker.run_id("")))
    tracker.close()
    assert len(MlflowClient(tracker.uri).search_runs([tracker.experiment_id])) == 6
    port = free_port()
    with mlflow_ui(port, tracker.uri):
        options = [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=30000"]
        page = subprocess.run(
            [BROWSER, *SILENT.split(), *options, "--dump-dom", f"http://127.0.0.1:{port}{link}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout
    places = [page.find(f"#0{number} seen") for number in (1, 2, 0)]
    assert -1 < places[0] < places[1] < places[2]
    assert "of another sweep" not in page
    assert "of its confirmation" not in page
