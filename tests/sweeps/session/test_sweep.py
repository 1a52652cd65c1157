"""Whole sweeps with real Ray, Optuna and MLflow over a trainer that costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Swept, small_spec, sweep
from made_up_trainers import made_up
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState
from waiting import PATIENCE, wait_until

from sweeps.session.certainty import verdicts
from sweeps.session.summary import write_best
from sweeps.states import State
from sweeps.storage.lookup import find_folder
from sweeps.study.records import best_of
from sweeps.study.store import JournalStore
from sweeps.study.study import load_study, read_trials

pytestmark = pytest.mark.slow
ENDS = {
    "good": 0.5,
    "explodes": 3,
    "raises": 4,
    "nan": 5,
    "dies": 6,
    "silent": 7,
    "at_once": 8,
    "infinite": 2.5,
    "no_memory": 2.6,
    "no_disk": 2.7,
    "hangs": 9,
}
BROKEN = ("raises", "nan", "dies", "silent", "infinite", "no_memory", "no_disk", "hangs")
"""Baseline -> `lr`; each ends in a way of its own."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """One trial for each way to end, and two suggested ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        baselines = {name: {"lr": lr} for name, lr in ENDS.items()}
        spec = small_spec(
            baselines=baselines,
            trials=len(ENDS) + 2,
            failures={"max_fraction": 1.0},
            stall_minutes=0.2,
        )
        return sweep(spec, made_up)


def runs_of(swept: Swept) -> dict[str, Run]:
    """Name without number -> run, of all runs in the store."""
    client = MlflowClient(swept.uri)
    experiment = client.get_experiment_by_name("sweeps")
    runs = client.search_runs([experiment.experiment_id])
    return {run.data.tags.get("sweep.baseline", run.info.run_name): run for run in runs}


@pytest.mark.parametrize(
    ("name", "state", "told", "values", "violated"),
    [
        ("good", State.COMPLETED, TrialState.COMPLETE, 3, False),
        ("explodes", State.INFEASIBLE, TrialState.PRUNED, 1, True),
        ("at_once", State.INFEASIBLE, TrialState.PRUNED, 0, True),
        ("raises", State.FAILED, TrialState.FAIL, 0, None),
        ("nan", State.FAILED, TrialState.FAIL, 0, None),
        ("dies", State.FAILED, TrialState.FAIL, 0, None),
        ("silent", State.FAILED, TrialState.FAIL, 0, None),
        ("infinite", State.FAILED, TrialState.FAIL, 0, None),
        ("no_memory", State.FAILED, TrialState.FAIL, 0, None),
        ("no_disk", State.FAILED, TrialState.FAIL, 0, None),
        ("hangs", State.FAILED, TrialState.FAIL, 1, None),
    ],
)
def test_study_is_told_the_truth(swept, name, state, told, values, violated):
    study = load_study(JournalStore(swept.folder.study_file))
    trial = study.trials[list(ENDS).index(name)]
    assert trial.user_attrs["baseline"] == name
    assert trial.user_attrs["state"] == state
    assert trial.state is told
    assert len(trial.intermediate_values) == values
    constraints = list(trial.constraints.values())
    assert [value > 0 for value in constraints] == ([] if violated is None else [violated])


def test_study_and_mlflow_show_the_one_value_of_the_best_epoch(swept):
    good = read_trials(swept.folder.study_file)[0]
    assert (good.value, good.best_epoch) == (pytest.approx(0.49), 1)
    assert good.metrics["val/nAP50"] == good.value
    shown = runs_of(swept)["good"].data.metrics
    assert shown["objective"] == shown["val/nAP50"] == good.value
    assert shown["objective/epoch"] == 1


def test_every_run_is_closed_with_its_state(swept):
    runs = runs_of(swept)
    states = {name: runs[name].data.tags["state"] for name in ENDS}
    assert states == {
        "good": "completed",
        "explodes": "infeasible",
        "at_once": "infeasible",
        **dict.fromkeys(BROKEN, "failed"),
    }
    assert len(runs) == len(ENDS) + 3
    assert {run.info.status for run in runs.values()} == {"FINISHED", "FAILED"}
    assert runs["explodes"].info.status == "FAILED"
    assert runs["raises"].info.status == "FAILED"
    assert "no such luck" in runs["raises"].data.tags["reason"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises", "RuntimeError: no such luck"),
        ("infinite", "val/nAP50 is inf at epoch 1"),
        ("no_memory", "out of memory: MemoryError: a lot"),
        ("no_disk", "disk full: "),
        ("dies", "the worker process died twice"),
        ("hangs", "reported nothing for 0.2 minutes"),
    ],
)
def test_reason_says_what_went_wrong(swept, name, reason):
    assert read_trials(swept.folder.study_file)[list(ENDS).index(name)].reason.startswith(reason)


def test_hang_leaves_the_place_where_it_hung(swept):
    folder = swept.folder.trials_dir / f"{list(ENDS).index('hangs'):04d}"
    assert "in made_up" in (folder / "stall.txt").read_text()


def test_worker_is_replaced_after_an_explosion_and_kept_after_success(swept):
    pids = [
        (swept.folder.trials_dir / f"{n:04d}" / "pid").read_text() for n in range(len(ENDS) + 2)
    ]
    names = list(ENDS)
    assert pids[names.index("good")] == pids[names.index("explodes")]
    for name in ("explodes", "raises", "nan", "silent", "at_once", "infinite", "no_memory"):
        at = names.index(name)
        assert pids[at] != pids[at + 1], name


def test_costs_of_a_trial_are_measured(swept):
    costs = read_trials(swept.folder.study_file)[0].costs
    assert 1e7 < costs["trial/memory_bytes"] < 1e10
    assert 0 < costs["trial/step_seconds"] < 10
    run = runs_of(swept)["good"]
    assert run.data.metrics["trial/step_seconds"] == costs["trial/step_seconds"]


def test_trials_hang_under_the_sweep(swept):
    runs = runs_of(swept)
    parent = runs.pop("small")
    assert parent.info.run_id == swept.parent
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {swept.parent}
    assert parent.data.metrics["trials/infeasible"] == 2
    assert parent.data.metrics["trials/failed"] == len(BROKEN)


def test_run_holds_steps_parameters_and_files(swept):
    client, run = MlflowClient(swept.uri), runs_of(swept)["explodes"]
    norms = client.get_metric_history(run.info.run_id, "grad/norm")
    assert [(m.step, m.value) for m in norms] == [(1, 8), (2, 8), (3, 8), (4, 5e4), (5, 5e4)]
    assert run.data.metrics["grad/nonfinite"] == 1
    assert run.data.params["lr"] == "3.0"
    assert run.data.params["gradient_clip_norm"] == "10.0"
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"config.yaml", "training_debug.log", "steps.jsonl"}


def test_ray_says_nothing_and_each_end_is_one_line(swept):
    lines = swept.printed.splitlines()
    again = [line for line in lines if "it resumes from its last checkpoint" in line]
    assert len(again) == 1  # the one without memory
    assert len(lines) == len(ENDS) + 2 + len(again)
    assert all(line.startswith("[") for line in lines)


def test_best_is_written_and_compared(swept):
    spec = small_spec(baselines={name: {"lr": lr} for name, lr in ENDS.items()})
    path = write_best(spec, swept.folder, swept.result.trials)
    best = best_of(swept.result.trials, spec.objective)
    assert best is not None
    assert path is not None
    text = path.read_text(encoding="utf-8")
    assert f"\nlr: {best.parameters['lr']}\n" in text
    assert "checkpoint_dir" not in text
    said = "\n".join(verdicts(spec, swept.result.trials))
    assert "baseline 'explodes' exploded" in said
    assert "more than two standard errors" in said


def test_ctrl_c_closes_everything_truthfully(in_own_folder):
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from conftest import small_spec, sweep\n"
        "from made_up_trainers import made_up\n"
        "spec = small_spec(baselines={'good': {'lr': 0.5}, 'hangs': {'lr': 9}}, trials=4)\n"
        "print('interrupted', sweep(spec, made_up).result.stop.exit_code == 130)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[3])])
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    hanging = in_own_folder / "mlruns" / "sweeps" / "small" / "trials" / "0001" / "config.yaml"
    wait_until(hanging.exists)
    study = load_study(JournalStore(find_folder("small").study_file))
    wait_until(lambda: study.trials[-1].number == 1 and study.trials[1].intermediate_values)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "interrupted True" in printed
    folder = find_folder("small")
    trials = read_trials(folder.study_file)
    assert [t.state for t in trials] == [State.COMPLETED, State.INTERRUPTED]
    assert trials[1].value == pytest.approx(8.99)
    client = MlflowClient(folder.load_record()["uri"])
    runs = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
    status = {run.info.run_name: run.info.status for run in runs}
    assert status == {
        "small": "KILLED",
        "★ #00 good · 0.4900": "FINISHED",
        "#01 hangs · interrupted": "KILLED",
    }
