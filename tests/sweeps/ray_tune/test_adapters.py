"""Trials that run out of memory for real: torch is refused it by the system."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import Swept, small_spec, sweep
from made_up_trainers import hungry
from mlflow import MlflowClient
from optuna.trial import TrialState

from sweeps.ray_tune.adapters import WorkerFailures
from sweeps.states import State
from sweeps.study.store import JournalStore
from sweeps.study.study import load_study
from sweeps.trial import failures

LRS = {"small": 0.5, "large": 2, "too_large": 3, "lost_then_large": 4, "lost": 5, "then_lost": 6}
"""Baseline -> `lr`; see `hungry`."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """Two at once; the machine has two CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        spec = small_spec(
            baselines={name: {"lr": lr} for name, lr in LRS.items()},
            trials=len(LRS) + 1,
            space={"lr": {"low": 0.1, "high": 6}},
            resources={"cpus": 1},
            failures={"max_fraction": 1.0},
            sampler={"name": "random", "seed": 1},
        )
        return sweep(spec, hungry, cpus=2)


def tries(swept: Swept, name: str) -> list[list[int]]:
    """Process, CPUs and epochs done at each start of a trial."""
    folder = swept.folder.trials_dir / f"{list(LRS).index(name):04d}"
    return [[int(n) for n in line.split()] for line in (folder / "tries").read_text().splitlines()]


@pytest.mark.slow
def test_trial_without_memory_goes_on_alone_in_a_fresh_process(swept):
    first, second = tries(swept, "large")
    assert first[1:] == [1, 0]
    assert second[1:] == [2, 1]
    assert first[0] != second[0]
    trial = swept.result.trials[1]
    assert trial.state is State.COMPLETED
    assert trial.value == pytest.approx(0.2)
    assert trial.retried.startswith("out of memory: RuntimeError: [enforce fail")


@pytest.mark.slow
def test_second_time_it_has_failed(swept):
    assert [cpus for _, cpus, _ in tries(swept, "too_large")] == [1, 2]
    trial = swept.result.trials[2]
    assert trial.state is State.FAILED
    assert trial.reason.startswith("out of memory: ")
    assert "second time, running alone" in trial.reason
    assert trial.retried


@pytest.mark.slow
def test_lost_worker_is_not_taken_for_a_lack_of_memory(swept):
    assert [cpus for _, cpus, _ in tries(swept, "lost")] == [1, 1]
    lost = swept.result.trials[4]
    assert (lost.state, lost.retried) == (State.FAILED, "")
    assert lost.reason.startswith("the worker process died twice")
    assert [cpus for _, cpus, _ in tries(swept, "then_lost")] == [1, 2]
    then_lost = swept.result.trials[5]
    assert then_lost.state is State.FAILED
    assert then_lost.reason.startswith("the worker process died when retried alone, the first")


@pytest.mark.slow
def test_trial_is_started_again_only_once_in_all(swept):
    assert [cpus for _, cpus, _ in tries(swept, "lost_then_large")] == [1, 1]
    trial = swept.result.trials[3]
    assert trial.state is State.FAILED
    assert trial.reason.startswith("out of memory: ")
    assert trial.retried == ""


@pytest.mark.slow
def test_sweep_goes_on_with_the_others(swept):
    trials = swept.result.trials
    assert swept.result.stop is None
    assert len(trials) == len(LRS) + 1
    assert [t.state for t in trials if t.baseline in (None, "small")] == [State.COMPLETED] * 2


@pytest.mark.slow
def test_one_trial_one_run_and_both_say_that_it_was_tried_again(swept):
    study = load_study(JournalStore(swept.folder.study_file))
    states = [trial.state for trial in study.trials]
    assert states[:3] == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]
    assert list(study.trials[1].intermediate_values) == [1, 2, 3]
    client = MlflowClient(swept.uri)
    experiment = client.get_experiment_by_name("sweeps")
    runs = client.search_runs([experiment.experiment_id], "tags.`sweep.trial` != ''")
    tags = {run.data.tags["sweep.trial"]: run.data.tags.get("retried") for run in runs}
    assert len(runs) == len(tags) == len(study.trials)
    assert {number for number, tag in tags.items() if tag == "out of memory"} == {"1", "2", "5"}
    assert set(tags.values()) == {None, "out of memory"}
    steps = client.get_metric_history(
        next(run.info.run_id for run in runs if run.data.tags["sweep.trial"] == "1"), "grad/norm"
    )
    assert [metric.step for metric in steps] == list(range(1, 10))


@pytest.mark.slow
def test_display_tells_of_it(swept):
    lines = [line for line in swept.printed.splitlines() if "ran out of memory; it resumes" in line]
    assert len(lines) == 3


def dead(trial_id: str, texts: list[str], folder: Path) -> SimpleNamespace:
    """A trial of Ray Tune, as far as it tells of its failures."""
    file = folder / f"{trial_id}.txt"
    parts = (f"Failure # {i} (occurred at noon)\n{text}\n" for i, text in enumerate(texts, 1))
    file.write_text("".join(parts))
    metadata = SimpleNamespace(num_failures=len(texts))
    return SimpleNamespace(trial_id=trial_id, error_file=str(file), run_metadata=metadata)


def test_kill_by_the_kernel_explains_one_death(tmp_path, monkeypatch):
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 1\noom_kill 3\n")
    monkeypatch.setattr(failures, "EVENTS", events)
    found = WorkerFailures()
    before, first, second = (dead(name, ["ActorDiedError"], tmp_path) for name in "abc")
    assert found.cause(before).startswith("the worker process died")
    events.write_text("low 0\noom 2\noom_kill 4\n")
    assert found.cause(first).startswith("out of memory: the kernel")
    assert found.cause(second).startswith("the worker process died")
    assert found.cause(first).startswith("out of memory: the kernel")


def test_latest_failure_counts(tmp_path):
    raised = "ray::train()\nsweeps.trial.failures.RanOutOfMemory: out of memory: MemoryError: a lot; less\n"
    one = dead("a", [raised], tmp_path)
    assert WorkerFailures().cause(one) == "out of memory: MemoryError: a lot; less"
    two = dead("a", [raised, "ActorDiedError"], tmp_path)
    assert WorkerFailures().cause(two).startswith("the worker process died")
    never = SimpleNamespace(trial_id="b", error_file=None, run_metadata=one.run_metadata)
    assert WorkerFailures().cause(never).startswith("the worker process died")
