"""A sweep whose trainer loses settings ends and says so; real Ray, real training."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_runs
from conftest import Swept, small_spec, sweep
from ray import cloudpickle

from fsdet.command import ExitCode
from fsdet.config import TrainConfig
from fsdet.train import train
from sweeps.trial.trial import Train

cloudpickle.register_pickle_by_value(tiny_runs)  # workers cannot import it


def run(trainer: Train, trials: int) -> Swept:
    own = ("lr", "device", "threads")  # searched, or set by the sweep itself
    fixed = {key: value for key, value in tiny_runs.TINY.items() if key not in own}
    space = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    return sweep(small_spec(space=space, fixed=fixed, trials=trials), trainer)


@pytest.mark.slow
def test_a_trainer_that_loses_the_learning_rate_ends_the_sweep():
    def forgetful(config: TrainConfig, on_report=None, resume: Path | None = None, until=None):
        return train(config.model_copy(update={"lr": 1e-3}), on_report, resume, until)

    swept = run(forgetful, trials=4)
    stop = swept.result.stop
    assert stop is not None
    assert stop.exit_code == ExitCode.WRONG_SETTINGS
    assert "trial 0 trained with lr 0.001, but" in stop.text
    assert "was suggested; no value of this sweep can be trusted" in stop.text
    assert len(swept.result.trials) == 1


@pytest.mark.slow
def test_the_trainer_itself_is_not_suspected():
    swept = run(train, trials=2)
    assert swept.result.stop is None
    assert [str(trial.state) for trial in swept.result.trials] == ["completed", "completed"]
    folders = [swept.folder.trials_dir / trial.folder for trial in swept.result.trials]
    assert all((folder / "first_step.json").is_file() for folder in folders)
