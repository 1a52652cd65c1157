"""Trials that run out of memory for real: torch is refused it by the system."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from conftest import Swept, small_spec, sweep
from made_up_trainers import hungry
from mlflow import MlflowClient
from optuna.trial import TrialState
from session_parts import Driver

from fsdet.checkpoint import save_checkpoint
from sweeps.config import Resources
from sweeps.ray_tune.tuner import TuneJob, needs_of
from sweeps.resources.machine import Machine
from sweeps.states import State
from sweeps.storage.folder import SweepFolder, sweeps_root
from sweeps.study.store import STUDY_NAME, JournalStore, build_storage
from sweeps.trial.identity import claim, settings_of
from sweeps.trial.messages import TrialRequest
from sweeps.trial.trial import TrialContext

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
    folder = swept.folder.trials / f"{list(LRS).index(name):04d}"
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
    study = optuna.load_study(study_name=STUDY_NAME, storage=build_storage(swept.folder.study))
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


@pytest.mark.slow
def test_trial_that_waited_to_run_alone_does_so_when_the_sweep_is_resumed():
    """The first driver is killed between the lack of memory and the second try."""
    spec = small_spec(
        space={"lr": {"low": 0.1, "high": 6}},
        baselines={"large": {"lr": 2}, "small": {"lr": 0.5}},
        resources={"cpus": 1},
    )
    folder = SweepFolder(sweeps_root() / "small")
    folder.path.mkdir(parents=True)
    first_driver = Driver(spec, JournalStore(folder.study))
    request = first_driver.start()
    first_driver.trials.on_retry(replace(request, retried="out of memory: MemoryError"))
    run_dir = folder.trials / "0000"
    run_dir.mkdir(parents=True)
    config = spec.config({"lr": 2.0}, run_dir)
    claim(run_dir, settings_of(config), "x")
    save_checkpoint(run_dir / "stage2_epoch0001.pt", {"epoch": 1}, config)
    (run_dir / "tries").write_text("1 1 0\n")
    swept = sweep(spec, hungry, cpus=2)
    assert [t.state for t in swept.result.trials] == [State.COMPLETED] * 2
    first, second = (line.split() for line in (run_dir / "tries").read_text().splitlines())
    assert (first, second[1:]) == (["1", "1", "0"], ["2", "1"])


@pytest.mark.parametrize(
    ("gpus", "why", "cpus", "cards"),
    [
        (0, "", 2, 0),
        (0, "out of memory: MemoryError", 8, 0),
        (0.25, "", 2, 0.25),
        (0.25, "out of memory: OutOfMemoryError: CUDA out of memory. Tried", 2, 1),
        (0.25, "out of memory: the kernel killed the worker", 8, 1),
        (1.5, "out of memory: OutOfMemoryError: CUDA out of memory. Tried", 2, 2),
    ],
)
def test_what_lacked_memory_is_what_a_trial_gets_alone(gpus, why, cpus, cards):
    resources, machine, spec = Resources(cpus=2, gpus=gpus), Machine(8, 2), small_spec()
    context = TrialContext(spec.objective, Path("trials"), "x")
    job = TuneJob(context, 1, "max", resources, machine, SweepFolder(Path()))
    config = spec.config({"lr": 1.0})
    request = TrialRequest(0, "0000", "0", {}, config, retried=why)
    asked = needs_of(job)(request).required_resources
    assert asked == {"CPU": cpus} | ({"GPU": cards} if cards else {})
