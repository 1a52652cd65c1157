"""Every sampler runs a whole sweep with real Ray, exploding corner included."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import small_spec, sweep
from made_up_trainers import made_up
from optuna.trial import TrialState

from sweeps.states import State
from sweeps.study.store import JournalStore
from sweeps.study.study import CONSTRAINT, load_study
from sweeps.trial.worker import STEP_SECONDS

SPACE = {"lr": {"low": 0.2, "high": 8, "log": True}, "dfl_weight": {"low": 0.1, "high": 3}}
BASELINES = {"good": {"lr": 1.0, "dfl_weight": 1.0}, "explodes": {"lr": 8.0, "dfl_weight": 1.0}}
SAMPLERS: dict[str, dict[str, Any]] = {
    "gp": {},
    "cmaes": {},
    "qmc": {},
    "grid": {"space": {"lr": {"choices": [0.5, 1.0, 8.0]}, "dfl_weight": {"choices": [1.0, 2.0]}}},
    "nsgaii": {"second_objective": {"metric": STEP_SECONDS}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_is_told_the_truth_of_every_trial(name):
    sampler = {"name": name, "seed": 3, "startup_trials": 4}
    more = {"space": SPACE, "baselines": BASELINES, "trials": 6, **SAMPLERS[name]}
    spec = small_spec(sampler=sampler, **more)
    swept = sweep(spec, made_up)
    study = load_study(JournalStore(swept.folder.study_file))
    records = swept.result.trials
    assert len(records) == len(study.trials) == 6
    assert {State.COMPLETED, State.INFEASIBLE} <= {t.state for t in records}
    assert len({str(t.parameters) for t in records}) == 6
    exploded = TrialState.COMPLETE if spec.sampler.reports_complete else TrialState.PRUNED
    for record, trial in zip(records, study.trials, strict=True):
        assert (trial.constraints[CONSTRAINT] > 0) == (record.state is State.INFEASIBLE)
        if record.state is State.INFEASIBLE:
            assert trial.state is exploded
        else:
            assert trial.state is TrialState.COMPLETE
            assert trial.values[0] == record.value
            assert len(trial.values) == len(spec.objectives)


@pytest.mark.slow
def test_a_sweep_starts_warm_from_an_earlier_one():
    first = sweep(small_spec(space=SPACE, baselines=BASELINES, trials=4), made_up)
    warm = small_spec(
        name="warm",
        space=SPACE,
        trials=3,
        sampler={"name": "tpe"},
        warm_start=first.folder.name,
    )
    second = sweep(warm, made_up)
    study = load_study(JournalStore(second.folder.study_file))
    assert len(second.result.trials) == 3
    assert len(study.trials) == 3 + len(first.result.trials)
    assert {str(t.parameters) for t in second.result.trials}.isdisjoint(
        {str(t.parameters) for t in first.result.trials}
    )
