"""Trials with Ray Tune: what each is given."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import small_spec, sweep
from made_up_checkpoint import made_up_content
from made_up_trainers import hungry, made_up
from ray.tune.experiment import Trial
from session_parts import Driver

from fsdet.checkpoint.content import save_checkpoint
from sweeps.config import Resources
from sweeps.ray_tune import internals
from sweeps.ray_tune.tuner import TuneJob, needs_of
from sweeps.resources.machine import Machine
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import sweeps_root
from sweeps.study.store import JournalStore
from sweeps.trial.identity import claim, settings_of
from sweeps.trial.messages import TrialRequest
from sweeps.trial.trial import TrialContext


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
    first_driver = Driver(spec, JournalStore(folder.study_file))
    request = first_driver.start()
    first_driver.trials.on_retry(replace(request, retried="out of memory: MemoryError"))
    run_dir = folder.trials_dir / "0000"
    run_dir.mkdir(parents=True)
    config = spec.config({"lr": 2.0}, run_dir)
    claim(run_dir, settings_of(config), "x")
    save_checkpoint(run_dir / "stage2_epoch0001.pt", made_up_content(config, epoch=1), config)
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
        (2, "out of memory: OutOfMemoryError: CUDA out of memory. Tried", 2, 2),
    ],
)
def test_what_lacked_memory_is_what_a_trial_gets_alone(gpus, why, cpus, cards):
    resources, machine, spec = Resources(cpus=2, gpus=gpus), Machine(8, 2), small_spec()
    context = TrialContext(spec.objective, Path("trials"), "x")
    job = TuneJob(context, resources, machine, SweepFolder(Path()))
    config = spec.config({"lr": 1.0})
    request = TrialRequest(0, "0000", "0", {}, config, retried=why)
    asked = needs_of(job)(request).required_resources
    assert asked == {"CPU": cpus} | ({"GPU": cards} if cards else {})


@pytest.mark.slow
def test_ray_keeps_no_trial_that_has_ended(monkeypatch):
    forget, kept, alive = internals.forget_ended, [], []

    def counting(controller: Any) -> None:
        forget(controller)
        kept.append(len(controller.get_trials()))
        gc.collect()
        alive.append(sum(isinstance(thing, Trial) for thing in gc.get_objects()))

    monkeypatch.setattr(internals, "forget_ended", counting)
    swept = sweep(small_spec(trials=10), made_up)
    assert [t.state for t in swept.result.trials] == [State.COMPLETED] * 10
    assert len(kept) == 10
    assert max(kept) <= 3  # the one that ends, the next one, and one that waits
    assert max(alive) <= 4
