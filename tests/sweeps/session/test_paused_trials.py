"""Sweeps whose trials pause and are promoted, with real Ray, Optuna and MLflow; cut off and resumed."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Swept, small_spec, sweep
from made_up_trainers import RELEASED, STEPS, made_up
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import TrialState
from rich.console import Console
from session_parts import Driver, report_of
from waiting import PATIENCE, wait_until

from sweeps.config import SweepSpec
from sweeps.resources.machine import Machine
from sweeps.session.live_display import build_display
from sweeps.session.session import Session
from sweeps.session.sweep import SweepResult, run_sweep
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import find_folder, sweeps_root
from sweeps.study.store import JournalStore
from sweeps.study.study import load_study, read_trials
from sweeps.tracking import Tracker

pytestmark = pytest.mark.slow

STATUS = {State.COMPLETED: "FINISHED", State.PRUNED: "KILLED", State.INFEASIBLE: "FAILED"}
"""Of runs in MLflow."""
BASELINES = {"good": 1.0, "explodes": 3, "worst": 0.05}
"""Name -> `lr`, by which the trials rank."""


def halving(**changes: Any) -> SweepSpec:
    """Rungs at epochs 1 and 3 of 9."""
    values: dict[str, Any] = {
        "space": {"lr": {"low": 0.05, "high": 3.0}},
        "fixed": {"epochs": 9, "n_episodes": 3},
        "scheduler": {"name": "asha", "grace": 1, "reduction": 3},
        "sampler": {"name": "random", "seed": 1},
        "resources": {"cpus": 1},
    }
    return small_spec(**{**values, **changes})


def study_of(folder: SweepFolder) -> optuna.Study:
    return load_study(JournalStore(folder.study_file))


def runs_of(uri: str) -> dict[str, Run]:
    """Number of the trial, empty for the parent -> its run; a trial has one."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
    found = {run.data.tags.get("sweep.trial", ""): run for run in runs}
    assert len(found) == len(runs)
    return found


def check_run(uri: str, run: Run, epochs: int) -> None:
    """Every step and evaluation of `epochs` epochs is there once."""
    client = MlflowClient(uri)
    for name, steps in {
        "grad/norm": list(range(1, epochs * STEPS + 1)),
        "val/nAP50": list(range(STEPS, epochs * STEPS + 1, STEPS)),
    }.items():
        history = client.get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in history] == steps


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Two at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        baselines = {name: {"lr": lr} for name, lr in BASELINES.items()}
        return sweep(halving(baselines=baselines, trials=14), made_up, cpus=2)


def test_no_baseline_is_pruned_and_the_best_is_complete(swept):
    trials = swept.result.trials
    assert [t.state for t in trials[:3]] == [State.COMPLETED, State.INFEASIBLE, State.COMPLETED]
    searched = trials[3:]
    assert {t.state for t in searched} == {State.COMPLETED, State.PRUNED}
    best = max(searched, key=lambda t: t.parameters["lr"])
    assert best.state is State.COMPLETED
    assert swept.result.stop is None


def test_study_knows_every_epoch_of_every_trial(swept):
    for record, trial in zip(swept.result.trials, study_of(swept.folder).trials, strict=True):
        epochs = list(trial.intermediate_values)
        assert epochs == list(range(1, len(epochs) + 1))
        if record.state is State.PRUNED:
            assert trial.state is TrialState.PRUNED
            assert len(epochs) in (1, 3)
            assert record.reason.startswith("rank ")
            assert record.reason.endswith(f" at epoch {len(epochs)}")
        elif record.state is State.COMPLETED:
            assert trial.state is TrialState.COMPLETE
            assert len(epochs) == 9
            assert trial.value == pytest.approx(record.parameters["lr"] - 0.01, abs=1e-5)


def test_promoted_trial_has_one_run_with_everything_once(swept):
    runs = runs_of(swept.uri)
    assert runs.keys() == {"", *map(str, range(14))}
    for trial in swept.result.trials:
        run = runs[str(trial.number)]
        assert (run.info.status, run.data.tags["state"]) == (STATUS[trial.state], trial.state)
        assert run.data.tags.get("reason", "") == trial.reason
        assert run.data.params["lr"] == str(trial.parameters["lr"])
        if trial.state is not State.INFEASIBLE:
            check_run(
                swept.uri, run, len(study_of(swept.folder).trials[trial.number].intermediate_values)
            )
    assert runs[""].data.metrics["trials/paused"] == 0


def test_run_gets_its_files_when_the_trial_has_ended(swept):
    client = MlflowClient(swept.uri)
    for run in runs_of(swept.uri).values():
        if run.data.tags.get("sweep.trial"):
            files = {file.path for file in client.list_artifacts(run.info.run_id)}
            assert files == {"config.yaml", "training_debug.log", "steps.jsonl"}


def test_each_pause_and_each_end_is_one_line(swept):
    lines = swept.printed.splitlines()
    assert sum(" paused (at epoch 1)" in line for line in lines) == 14
    assert sum(" pruned (rank " in line for line in lines) == sum(
        t.state is State.PRUNED for t in swept.result.trials
    )
    assert "[14/14]" in lines[-1]


def test_time_suffices_to_complete_the_baselines_and_the_best(in_own_folder):
    baselines = {name: {"lr": lr} for name, lr in BASELINES.items()}
    spec = halving(baselines=baselines, trials=10_000, budget={"hours": 45 / 3600})
    trials = sweep(spec, made_up).result.trials
    assert [t.state for t in trials[:3]] == [State.COMPLETED, State.INFEASIBLE, State.COMPLETED]
    assert len(trials) < 10_000
    assert any(t.state is State.COMPLETED for t in trials[3:])


SCRIPT = """
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
from conftest import sweep
from made_up_trainers import made_up
from test_paused_trials import cut_off
print('code', sweep(cut_off(), made_up).result.stop.exit_code.value)
"""


def cut_off() -> SweepSpec:
    """The best of three baselines is promoted and hangs in its second epoch."""
    baselines = {"good": {"lr": 0.5}, "hangs": {"lr": 9}, "worst": {"lr": 0.2}}
    return halving(
        baselines=baselines, trials=6, space={"lr": {"low": 0.01, "high": 9.0}}, resources=ONE
    )


ONE = {"cpus": 1, "max_concurrent": 1}


def start() -> subprocess.Popen[str]:
    """A session that stands in the second epoch of its promoted trial."""
    path = os.pathsep.join(str(Path(__file__).parents[n]) for n in (0, 1, 3))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    file = Path("mlruns/sweeps/small/sweep.yaml")  # written after the study
    wait_until(file.exists)

    def promoted() -> bool:
        trials = read_trials(find_folder("small").study_file)
        return len(trials) == 3 and trials[1].until == 3

    wait_until(promoted)
    return process


def resume() -> SweepResult:
    """One more session, to the end of the sweep."""
    folder = find_folder("small")
    (folder.trials_dir / "0001" / RELEASED).touch()
    tracker = Tracker(folder.load_record()["uri"], "sweeps")
    display = build_display(cut_off(), Console(file=io.StringIO()))
    try:
        return run_sweep(cut_off(), Session(folder, Machine(1, 0), tracker, made_up), display)
    finally:
        tracker.close()


def check_resumed(result: SweepResult) -> None:
    """As if the sweep had never been cut off."""
    folder = find_folder("small")
    uri = folder.load_record()["uri"]
    assert [t.state for t in result.trials[:3]] == [State.COMPLETED] * 3
    assert {t.state for t in result.trials[3:]} <= {State.COMPLETED, State.PRUNED}
    assert len(result.trials) == 6
    runs = runs_of(uri)
    assert runs.keys() == {"", *map(str, range(6))}
    for record, trial in zip(result.trials, study_of(folder).trials, strict=True):
        run, epochs = runs[str(record.number)], list(trial.intermediate_values)
        assert epochs == list(range(1, len(epochs) + 1))
        assert (run.info.status, run.data.tags["state"]) == (STATUS[record.state], record.state)
        check_run(uri, run, len(epochs))


def test_ctrl_c_leaves_paused_trials_to_be_promoted_later(in_own_folder):
    process = start()
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=PATIENCE)
    assert "code 130" in printed
    folder = find_folder("small")
    states = [t.state for t in read_trials(folder.study_file)]
    assert states == [State.PAUSED, State.INTERRUPTED, State.PAUSED]
    runs = runs_of(folder.load_record()["uri"])
    assert {key: (run.info.status, run.data.tags["state"]) for key, run in runs.items()} == {
        "": ("KILLED", "interrupted"),
        "0": ("SCHEDULED", "paused"),
        "1": ("KILLED", "interrupted"),
        "2": ("SCHEDULED", "paused"),
    }
    assert runs["0"].data.tags["reason"] == "at epoch 1"
    check_resumed(resume())


def test_paused_trials_of_a_killed_driver_are_promoted_later(in_own_folder):
    process = start()
    process.kill()
    process.communicate()
    states = [t.state for t in read_trials(find_folder("small").study_file)]
    assert states == [State.PAUSED, State.INTERRUPTED, State.PAUSED]
    check_resumed(resume())


def test_runs_of_paused_trials_that_the_store_has_lost_are_written_anew(in_own_folder):
    process = start()
    process.kill()
    process.communicate()
    uri = find_folder("small").load_record()["uri"]
    for number, run in runs_of(uri).items():
        if number in ("0", "2"):  # that of 2 may not have been written yet
            MlflowClient(uri).delete_run(run.info.run_id)
    check_resumed(resume())


def test_paused_trials_are_pruned_by_the_session_after_a_driver_that_was_killed_at_its_end():
    spec = halving(trials=3)
    folder = SweepFolder(sweeps_root() / "small")
    folder.path.mkdir(parents=True)
    killed = Driver(spec, JournalStore(folder.study_file))
    for number, value in enumerate((0.3, 0.5, 0.4)):
        killed.start()
        killed.pause(number, 1, value)
    killed.start()
    killed.end(1, report_of(9, 0.6, "final"))
    swept = sweep(spec, made_up)
    assert swept.result.stop is None
    states = [t.state for t in swept.result.trials]
    assert states == [State.PRUNED, State.COMPLETED, State.PRUNED]
