"""The run of a sweep in MLflow: its description, its curves, and the names and marks of its trials."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from conftest import Swept, small_spec, sweep
from made_up_trainers import made_up
from mlflow import MlflowClient
from mlflow.entities import Run

from sweeps.session.callbacks import ending, trial_name
from sweeps.session.parent_run import epochs_of, mark_best
from sweeps.states import Outcome, State
from sweeps.study.records import TrialRecord
from sweeps.tracking import Tracker

BASELINES = {"good": {"lr": 1.0}, "explodes": {"lr": 3.0}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        spec = small_spec(baselines=BASELINES, trials=4, space={"lr": {"low": 0.05, "high": 3.0}})
        return sweep(spec, made_up)


def parent_of(swept: Swept) -> Run:
    return MlflowClient(swept.uri).get_run(swept.parent)


def runs_of(swept: Swept) -> Sequence[Run]:
    found = f"tags.`mlflow.parentRunId` = '{swept.parent}'"
    return MlflowClient(swept.uri).search_runs([parent_of(swept).info.experiment_id], found)


@pytest.mark.slow
def test_description_says_what_was_searched_and_what_came_out(swept):
    text = parent_of(swept).data.tags["mlflow.note.content"]
    for part in (
        "| `lr` |",
        "baseline 'good'",
        "baseline 'explodes' exploded: step ",
        "| 1 (explodes) | infeasible |",
        "sweeps.rerun small",
        "4 trials:",
    ):
        assert part in text


@pytest.mark.slow
def test_curves_run_over_the_epochs_of_all_trials(swept):
    client = MlflowClient(swept.uri)
    best = client.get_metric_history(swept.parent, "best/val/nAP50")
    values = [metric.value for metric in best]
    assert values == sorted(values)
    assert values[-1] == max(t.value for t in swept.result.trials if t.state is State.COMPLETED)
    spent = client.get_metric_history(swept.parent, "compute/trainings")
    assert len(spent) == 4
    assert [m.step for m in spent] == sorted(m.step for m in spent)


@pytest.mark.slow
def test_one_trial_is_marked_as_the_winner_and_ranked_first(swept):
    winners = [run for run in runs_of(swept) if run.data.tags.get("sweep.winner") == "true"]
    assert len(winners) == 1
    assert winners[0].info.run_name.startswith("★ #")
    assert winners[0].data.metrics["rank"] == 1
    ranks = {run.data.tags["state"] for run in runs_of(swept) if "rank" in run.data.metrics}
    assert ranks == {"completed"}


@pytest.mark.slow
def test_names_say_what_happened(swept):
    names = {run.data.tags["sweep.trial"]: run.info.run_name for run in runs_of(swept)}
    assert names["1"].startswith("#01 explodes · exploded at step ")


@pytest.mark.slow
def test_places_are_tags_so_that_parameters_are_settings(swept):
    for run in runs_of(swept):
        assert "checkpoint_dir" not in run.data.params
        assert run.data.tags["config.checkpoint_dir"].endswith(
            f"{int(run.data.tags['sweep.trial']):04d}"
        )
        assert "lr" in run.data.params


@pytest.mark.slow
def test_versions_machine_and_the_file_of_the_sweep_are_there(swept):
    parent = parent_of(swept)
    assert {"version.torch", "version.optuna", "machine.cpus"} <= parent.data.tags.keys()
    files = MlflowClient(swept.uri).list_artifacts(swept.parent)
    assert "sweep.yaml" in {file.path for file in files}
    assert swept.folder.load_record()["view"].startswith("/#/experiments/")


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(State.COMPLETED), "0.1250"),
        (
            Outcome(State.INFEASIBLE, "step 41, loss in head: 3 > 2"),
            "exploded at step 41, loss in head",
        ),
        (Outcome(State.PRUNED, "rank 3 of 4 at epoch 1"), "pruned rank 3 of 4 at epoch 1"),
        (Outcome(State.FAILED, "x" * 99), f"failed {'x' * 53}"),
        (Outcome(State.INTERRUPTED, "it was killed"), "interrupted"),
    ],
)
def test_ending_is_short(outcome, text):
    assert ending(outcome, 0.125) == text


def test_name_of_a_trial_holds_its_first_two_settings():
    settings = {"gradient_clip_norm": 3.21, "dfl_weight": 0.612, "lr": 1.0}
    assert trial_name(7, None, settings) == "#07 clip 3.21 dfl 0.612"
    assert trial_name(0, "before", settings) == "#00 before"


def test_epochs_behind_a_trial_of_an_earlier_session():
    spec = small_spec(fixed={"epochs": 9})
    trials = [
        TrialRecord(0, State.COMPLETED, {}),
        TrialRecord(1, State.PAUSED, {}, until=3),
        TrialRecord(2, State.INFEASIBLE, {}, best_epoch=2),
        TrialRecord(3, State.INFEASIBLE, {}),
    ]
    assert [epochs_of(trial, spec) for trial in trials] == [9, 3, 2, 0]


@pytest.mark.slow
def test_the_mark_moves_to_another_trial_with_the_name(swept, monkeypatch):
    monkeypatch.chdir(swept.folder.path.parents[2])
    tracker = Tracker(swept.uri, "sweeps")
    for run in runs_of(swept):
        tracker.adopt(run.data.tags["sweep.trial"], run.info.run_id)
    trials, spec = swept.result.trials, swept.folder.load_spec()
    before = swept.folder.load_record()["marked"]
    other = next(t for t in trials if t.number != before)
    mark_best(tracker, spec, swept.folder, trials, other)
    mark_best(tracker, spec, swept.folder, trials, trials[before])
    mark_best(tracker, spec, swept.folder, trials, other)
    tracker.close()
    marked = {run.data.tags["sweep.trial"]: run for run in runs_of(swept)}
    for number in (str(before), str(other.number)):
        run, is_best = marked[number], number == str(other.number)
        assert run.info.run_name.startswith("★ ") == is_best
        assert run.data.tags["sweep.winner"] == ("true" if is_best else "false")
