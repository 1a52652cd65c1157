"""Each sampler searches a toy whose upper corner explodes, told what a sweep tells it."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from sweeps.config import SweepSpec
from sweeps.config.check import check_spec
from sweeps.search.sampler import ConstrainedCmaEs, build_sampler

SPACE = {
    "lr": {"low": 1e-4, "high": 10, "log": True},
    "fusion_lr_mult": {"low": 0.1, "high": 200, "log": True},
}
LEARNING = ("tpe", "gp", "cmaes")


def spec_of(name: str, **changes: Any) -> SweepSpec:
    values: dict[str, Any] = {
        "name": "toy",
        "space": SPACE,
        "sampler": {"name": name, "seed": 3},
        "scheduler": {"name": "none"},  # otherwise a sampler is part of a mixture
    }
    spec = SweepSpec(**{**values, **changes})
    check_spec(spec)
    return spec


def toy(values: dict[str, Any]) -> tuple[float, float]:
    """Value, best where lr is 0.01 and the product of both 0.5, and log10(norm / limit)."""
    lr, product = math.log10(values["lr"]), math.log10(values["lr"] * values["fusion_lr_mult"])
    return 0.6 - 0.05 * (lr + 2) ** 2 - 0.05 * (product + 0.3) ** 2, product


def search(spec: SweepSpec, trials: int, study: optuna.Study | None = None) -> optuna.Study:
    """Ask and tell a study as a sweep does."""
    study = study or optuna.create_study(direction="maximize", sampler=build_sampler(spec))
    for _ in range(trials):
        trial = study.ask()
        value, violation = toy(spec.suggest(trial))
        exploded = violation > 0
        trial.report(value, 1)
        trial.set_constraint("explosion", violation)
        if exploded and not spec.sampler.reports_complete:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, value)
    return study


def best(study: optuna.Study) -> float:
    """Best value of a trial that did not explode."""
    return max(t.value or 0 for t in study.trials if max(t.constraints.values()) <= 0)


def exploded(study: optuna.Study) -> int:
    return sum(max(t.constraints.values()) > 0 for t in study.trials)


@pytest.fixture(scope="module")
def searched() -> dict[str, optuna.Study]:
    """A study of 40 trials by each sampler of one objective."""
    names = ("random", "qmc", *LEARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return {name: search(spec_of(name), 40) for name in names}


@pytest.mark.parametrize("name", ["random", "qmc", *LEARNING])
def test_suggestions_lie_in_the_space(searched, name):
    assert all(spec_of(name).accepts(trial.params) for trial in searched[name].trials)


@pytest.mark.parametrize("name", LEARNING)
def test_learning_sampler_finds_more_than_chance(searched, name):
    late = searched[name].trials[20:]
    chance = searched["random"].trials[20:]
    values = [sum(toy(t.params)[0] for t in trials) for trials in (late, chance)]
    assert values[0] > values[1]
    assert best(searched[name]) > 0.55


def test_gaussian_process_keeps_off_the_exploding_corner(
    searched,
):
    assert exploded(searched["gp"]) < exploded(searched["random"]) / 2


@pytest.mark.parametrize("name", ["tpe", "gp", "random", "cmaes"])
def test_sampler_of_a_resumed_sweep_does_not_repeat_itself(name):
    spec = spec_of(name)
    first = search(spec, 3)
    first.sampler = build_sampler(spec, trials_before=3)
    search(spec, 3, first)
    assert len({trial.params["lr"] for trial in first.trials}) == 6


def test_sequence_of_qmc_goes_on_after_a_resume():
    spec = spec_of("qmc")
    whole, resumed = search(spec, 9), search(spec, 4)
    resumed.sampler = build_sampler(spec, trials_before=4)
    search(spec, 5, resumed)
    assert [t.params for t in resumed.trials] == [t.params for t in whole.trials]


def spread(study: optuna.Study) -> float:
    """Largest gap between neighbouring values of the logarithm of lr."""
    points = sorted(math.log10(trial.params["lr"]) for trial in study.trials[1:])
    return max(b - a for a, b in itertools.pairwise(points))


def test_qmc_spreads_more_evenly_than_chance(searched):
    assert spread(searched["qmc"]) < spread(searched["random"])


def grid_spec(**changes: Any) -> SweepSpec:
    """Six configurations: two with `norm`, four with `agc`."""
    mode = "gradient_clip_mode"
    space = {
        mode: {"choices": ["norm", "agc"]},
        "fusion_lr_mult": {"low": 1, "high": 3, "step": 2},
        "agc_clip_factor": {"choices": [0.01, 0.1], "when": {mode: "agc"}},
    }
    return spec_of("grid", space=space, trials=6, **changes)


def test_grid_tries_every_configuration_once_two_at_a_time():
    spec = grid_spec()
    study = optuna.create_study(sampler=build_sampler(spec))
    states = [TrialState.PRUNED, TrialState.FAIL, TrialState.COMPLETE]
    for i in range(3):
        trials = [study.ask(), study.ask()]
        for trial in trials:
            spec.suggest(trial)
        study.tell(trials[0], 1.0)
        study.tell(trials[1], 1.0 if states[i] is TrialState.COMPLETE else None, state=states[i])
    tried = [spec.search_space.complete(trial.params) for trial in study.trials]
    assert sorted(map(str, tried)) == sorted(map(str, spec.search_space.grid(100)))


def test_grid_skips_what_a_baseline_has_tried():
    baseline = {"gradient_clip_mode": "agc", "fusion_lr_mult": 3, "agc_clip_factor": 0.1}
    spec = grid_spec(baselines={"mine": baseline})
    study = optuna.create_study(sampler=build_sampler(spec))
    study.enqueue_trial(spec.baseline_parameters()["mine"])
    for _ in range(6):
        trial = study.ask()
        spec.suggest(trial)
        study.tell(trial, 1.0)
    assert len({str(trial.params) for trial in study.trials}) == 6


def test_two_objectives_end_in_a_front_and_no_exploded_trial_on_it():
    spec = spec_of(
        "nsgaii",
        second_objective={"metric": "trial/step_seconds"},
        scheduler={"name": "none"},
        sampler={"name": "nsgaii", "seed": 3, "startup_trials": 10},
    )
    assert spec.sampler.reports_complete
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=build_sampler(spec))
    for _ in range(60):
        trial = study.ask()
        value, violation = toy(spec.suggest(trial))
        trial.set_constraint("explosion", violation)
        study.tell(trial, (value, trial.params["fusion_lr_mult"]))
    front = study.best_trials
    assert len(front) > 1
    assert all(max(trial.constraints.values()) <= 0 for trial in front)
    early, late = study.trials[:10], study.trials[50:]
    counts = [sum(max(t.constraints.values()) > 0 for t in trials) for trials in (early, late)]
    assert counts[1] <= counts[0]


@given(
    st.sampled_from(["maximize", "minimize"]),
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-3, 3)), min_size=1, max_size=8),
)
def test_cmaes_ranks_exploded_trials_last_and_the_worst_of_them_lowest(direction, told):
    sampler = build_sampler(spec_of("cmaes"))
    assert isinstance(sampler, ConstrainedCmaEs)
    study = optuna.create_study(direction=direction)
    for value, violation in told:
        trial = study.ask()
        trial.set_constraint("explosion", violation)
        study.tell(trial, value)
    sign = 1 if direction == "minimize" else -1
    key: Callable[[optuna.trial.FrozenTrial], float] = lambda t: sign * (t.value or 0.0)  # noqa: E731
    ranked = [t.number for t in sorted(sampler._get_trials(study), key=key)]
    deb = [(max(v, 0), sign * x if v <= 0 else 0) for x, v in told]
    for earlier, later in itertools.pairwise(ranked):
        assert deb[earlier] <= deb[later] or math.isclose(
            deb[earlier][0], deb[later][0], abs_tol=1e-9
        )
    assert [trial.value for trial in study.trials] == [value for value, _ in told]
