"""Sampler, scheduler and objectives that do not fit the space or each other."""

from __future__ import annotations

import pytest
from yaml_files import GOOD, NUMBERS, load

from sweeps.errors import SweepError

SEARCH = {
    "gp and when": ("trials: 9", "sampler: {name: gp}",
        ["x.yaml:11", "gp draws all settings together", "agc_clip_factor", "use tpe"]),
    "grid of reals": ("trials: 9", "sampler: {name: grid}",
        ["x.yaml:4: space.gradient_clip_norm", "give choices or a step"]),
    "pbt": ("trials: 9", "scheduler: {name: pbt}",
        ["x.yaml:11: scheduler.name", "schedule that no single job", "use asha"]),
    "hyperband": ("trials: 9", "scheduler: {name: hyperband}",
        ["x.yaml:11: scheduler.name", "use asha"]),
    "median": ("trials: 9", "scheduler: {name: median}",
        ["x.yaml:11: scheduler.name", "median rule", "use asha"]),
    "warm random": ("trials: 9", "sampler: {name: random}\nwarm_start: earlier",
        ["x.yaml:12: warm_start", "random learns nothing", "tpe or gp"]),
    "gpu hours": ("trials: 9", "budget: {gpu_hours: 2}",
        ["x.yaml:11: budget.gpu_hours", "use no GPU", "budget.hours"]),
    "target": ("trials: 9", "budget: {target: 57}", ["x.yaml:11", "between 0 and 1", "57"]),
    "no hours": ("trials: 9", "budget: {hours: 0}", ["x.yaml:11: budget.hours", "greater than"]),
    "unknown budget": ("trials: 9", "budget: {hour: 1}", ["did you mean 'hours'"]),
    "failures": ("trials: 9", "failures: {max_fraction: 50}", ["x.yaml:11", "less than or equal"]),
    "stall": ("trials: 9", "stall_minutes: -1", ["x.yaml:11: stall_minutes", "greater than or equal to 0.01"]),
    "cost first": ("trials: 9", "objective: {metric: trial/step_seconds}",
        ["x.yaml:11: objective.metric", "only at the end", "second_objective"]),
    "cost to raise": ("trials: 9", "second_objective: {metric: trial/memory_bytes, mode: max}",
        ["x.yaml:11: second_objective", "is a cost", "drop mode"]),
    "two for tpe": ("trials: 9", "second_objective: {metric: val/nAP}",
        ["x.yaml:11: second_objective", "needs sampler.name nsgaii, but got random"]),
}  # fmt: skip
OF_NUMBERS = {
    "cmaes and choices": ("{low: 1, high: 9}", "{choices: [1, 2]}", "cmaes",
        ["x.yaml:4: space.fusion_lr_mult", "cmaes searches numbers only"]),
    "cmaes alone": ("  fusion_lr_mult: {low: 1, high: 9}\n", "", "cmaes",
        ["sampler.name", "at least two"]),
    "one objective": ("trials: 9", "scheduler: {name: none}", "nsgaii",
        ["nsgaii needs two objectives", "add second_objective"]),
    "same twice": ("trials: 9", "second_objective: {metric: val/nAP50}", "nsgaii",
        ["x.yaml:5: second_objective.metric", "must differ"]),
    "nsgaii and asha": ("trials: 9", "second_objective: {metric: trial/step_seconds}", "nsgaii",
        ["scheduler.name", "compares complete trials, but got asha", "set it to none"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SEARCH)
def test_mistake_is_told_with_place_and_cure(case):
    old, new, words = SEARCH[case]
    assert old in GOOD
    with pytest.raises(SweepError) as caught:
        load(GOOD.replace(old, new, 1))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("case", OF_NUMBERS)
def test_sampler_that_does_not_fit_is_told(case):
    old, new, sampler, words = OF_NUMBERS[case]
    assert old in NUMBERS
    with pytest.raises(SweepError) as caught:
        load(NUMBERS.replace(old, new, 1), f"sampler.name={sampler}")
    for word in words:
        assert word in str(caught.value)


def test_good_files_are_accepted():
    load(GOOD)
    for name in ("tpe", "gp", "random", "qmc", "cmaes"):
        load(NUMBERS, f"sampler.name={name}")
    spec = load(
        NUMBERS,
        "sampler.name=nsgaii",
        "scheduler.name=none",
        "second_objective.metric=trial/memory_bytes",
    )
    assert [(o.metric, o.mode) for o in spec.objectives] == [
        ("val/nAP50", "max"),
        ("trial/memory_bytes", "min"),
    ]


def test_grid_counts_its_trials():
    grid = GOOD.replace("low: 0.1, high: 100, log: true", "choices: [1, 10]")
    whole = grid.replace("trials: 9\n", "sampler: {name: grid}\n")
    assert load(whole).trials == 20
    assert load(whole.replace("fusion_lr_mult: 3", "fusion_lr_mult: 5")).trials == 20
    assert load(whole, "trials=7").trials == 7
    with pytest.raises(SweepError, match="--set trials: the grid has 20 configurations"):
        load(whole, "trials=21")
