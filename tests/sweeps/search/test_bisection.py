"""Bisection on explosions whose thresholds are known."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from conftest import small_spec
from optuna.trial import TrialState

from sweeps.config import SweepSpec
from sweeps.config.check import check_spec
from sweeps.errors import SweepError
from sweeps.report.stable_range import stable_ranges, stable_sections
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.search.bisection import Line, find_bracket, judged, lines_of, ranges_of_baseline
from sweeps.search.sampler import build_sampler
from sweeps.states import State
from sweeps.study.records import to_records

SPACE = {
    "seed": {"choices": [0, 1]},
    "gradient_clip_mode": {"choices": ["norm", "agc"]},
    "fusion_lr_mult": {"low": 0.1, "high": 1000, "log": True},
    "head_lr_mult": {"low": 0.1, "high": 1000, "log": True},
}
BASELINE = {"seed": 0, "gradient_clip_mode": "norm", "fusion_lr_mult": 2.0, "head_lr_mult": 1.0}
LIMITS = {"fusion_lr_mult": 50.0, "head_lr_mult": 700.0}
"""Value from which a trial explodes; twice that under agc, and a little more at seed 1."""


RANGES = {key: part for key, part in SPACE.items() if key != "seed"}


def spec_of(**changes: Any) -> SweepSpec:
    values = {
        "space": SPACE,
        "baselines": {"by_hand": BASELINE},
        "sampler": {"name": "bisection"},
        "scheduler": {"name": "none"},
        "trials": 61,
    }
    return small_spec(**{**values, **changes})


def explodes(parameters: dict[str, Any]) -> bool:
    factor = {"norm": 1, "agc": 2}[parameters["gradient_clip_mode"]] * (
        1 + 0.1 * parameters["seed"]
    )
    return any(parameters[key] > limit * factor for key, limit in LIMITS.items())


def searched(spec: SweepSpec, at_once: int = 1) -> optuna.Study:
    """A study of all trials; `at_once` run at the same time."""
    study = optuna.create_study(sampler=build_sampler(spec))
    study.enqueue_trial(BASELINE)
    running: list[tuple[optuna.Trial, dict[str, Any]]] = []
    for _ in range(spec.trials):
        trial = study.ask()
        running.append((trial, spec.suggest(trial)))
        if len(running) == at_once:
            end(study, *running.pop(0))
    for one in running:
        end(study, *one)
    return study


def end(study: optuna.Study, trial: optuna.Trial, parameters: dict[str, Any]) -> None:
    bad = explodes(parameters)
    trial.set_user_attr("state", str(State.INFEASIBLE if bad else State.COMPLETED))
    study.tell(trial, None if bad else 0.5, state=TrialState.PRUNED if bad else None)


@pytest.mark.parametrize("at_once", [1, 3])
def test_every_line_ends_around_its_threshold(at_once):
    spec = spec_of()
    check_spec(spec)
    study = searched(spec, at_once)
    ended = [(t.params, t.user_attrs["state"] == State.INFEASIBLE) for t in study.trials]
    distributions = spec.distributions()
    ranges = {key: BASELINE[key] for key in LIMITS}
    for line in lines_of(distributions):
        bracket = find_bracket(line, distributions[line.key], ranges, ended)
        limit = LIMITS[line.key] * (2 if ("gradient_clip_mode", "agc") in line.choices else 1)
        limit *= 1.1 if ("seed", 1) in line.choices else 1
        if limit >= 1000:
            assert bracket.unstable is None
            assert bracket.stable == 1000
        else:
            assert bracket.unstable is not None
            assert bracket.stable <= limit < bracket.unstable
            assert bracket.unstable / bracket.stable < 1.2
    values = [tuple(t.params.values()) for t in study.trials]
    repeated = len(values) - len(set(values))
    assert repeated == 0


def test_lines_are_narrowed_evenly():
    study = searched(spec_of(trials=41))
    lines = [
        (t.params["seed"], t.params["gradient_clip_mode"], t.params["fusion_lr_mult"] != 2.0)
        for t in study.trials[1:]
    ]
    counts = {line: lines.count(line) for line in set(lines)}
    # the end of the head's range does not explode under agc
    assert {counts.pop((seed, "agc", False)) for seed in (0, 1)} == {1}
    assert set(counts.values()) <= {6, 7, 8}


def test_a_baseline_that_explodes_leaves_only_what_is_below_it():
    distributions = spec_of().distributions()
    line = Line("fusion_lr_mult", (("seed", 0), ("gradient_clip_mode", "norm")))
    trials = [({**BASELINE}, True)]
    bracket = find_bracket(
        line, distributions["fusion_lr_mult"], {k: BASELINE[k] for k in LIMITS}, trials
    )
    assert (bracket.stable, bracket.unstable) == (0.1, 2.0)
    assert bracket.next == pytest.approx(math.sqrt(0.2))


def test_the_report_says_how_far_each_setting_can_be_raised():
    spec = spec_of()
    study = searched(spec)
    trials = tuple(ShownTrial(record, {}) for record in to_records(study.trials))
    found = {(one.key, one.label): one for one in stable_ranges(SweepData("small", spec, trials))}
    assert len(found) == 4
    fusion = found["fusion_lr_mult", "norm"]
    assert fusion.seeds == 2
    assert fusion.beyond == 0
    assert fusion.low < math.sqrt(50 * 55) < fusion.high
    assert fusion.value == pytest.approx(math.sqrt(50 * 55), rel=0.1)
    assert found["fusion_lr_mult", "agc"].value == pytest.approx(2 * fusion.value, rel=0.15)
    assert found["head_lr_mult", "agc"].beyond == 2


def test_the_report_compares_with_the_first_choice_at_the_same_seeds():
    spec = spec_of(space={**SPACE, "seed": {"choices": [0, 1, 2]}}, trials=91)
    trials = tuple(ShownTrial(record, {}) for record in to_records(searched(spec).trials))
    (section,) = stable_sections(SweepData("small", spec, trials))
    assert "2 of 2 differ from 'norm' beyond noise" in section.sentence
    rows = {row[:2]: row[-1] for row in section.table.rows}
    assert rows["fusion lr", "norm"] == "—"
    ratio = float(rows["fusion lr", "agc"].split()[0])
    assert ratio == pytest.approx(2, rel=0.1)
    assert rows["head lr", "agc"].startswith("at least 1.3")  # stable to the end of its range


@pytest.mark.parametrize(("mode", "value"), [("max", 0.05), ("min", 0.9)])
def test_a_training_that_is_lost_is_unstable_too(mode, value):
    """Above 50 a trial ends without an explosion and with a bad objective."""
    worst = {"max": 0.1, "min": 0.6}[mode]
    spec = spec_of(
        sampler={"name": "bisection", "worst": worst},
        objective={"metric": "val/nAP50", "mode": mode},
        trials=31,
    )
    check_spec(spec)
    study = optuna.create_study(sampler=build_sampler(spec))
    study.enqueue_trial(BASELINE)
    for _ in range(spec.trials):
        trial = study.ask()
        lost = spec.suggest(trial)["fusion_lr_mult"] > 50
        trial.set_user_attr("state", str(State.COMPLETED))
        trial.set_user_attr("best", value if lost else 0.5)
        study.tell(trial, value if lost else 0.5)
    shown = tuple(ShownTrial(record, {}) for record in to_records(study.trials))
    found = {(one.key, one.label): one for one in stable_ranges(SweepData("a", spec, shown))}
    assert found["fusion_lr_mult", "norm"].value == pytest.approx(50, rel=0.5)
    assert found["fusion_lr_mult", "norm"].beyond == 0
    assert found["head_lr_mult", "norm"].beyond == 2  # its end was never lost


def test_a_trial_that_always_fails_takes_turns_with_all_lines():
    spec = spec_of(trials=9)
    study = optuna.create_study(sampler=build_sampler(spec))
    study.enqueue_trial(BASELINE)
    tried = []
    for number in range(spec.trials):
        trial = study.ask()
        tried.append(spec.suggest(trial))
        trial.set_user_attr("state", str(State.FAILED if number else State.COMPLETED))
        study.tell(trial, None if number else 0.5, TrialState.FAIL if number else None)
    assert len({tuple(one.values()) for one in tried}) == spec.trials  # the end of each of 8 lines


@pytest.mark.parametrize("failing", [1, 15], ids=["at the end of its range", "halfway"])
def test_a_line_on_which_one_trial_failed_is_narrowed_like_the_others(failing):
    spec = spec_of()
    study = optuna.create_study(sampler=build_sampler(spec))
    study.enqueue_trial(BASELINE)
    for number in range(spec.trials):
        trial = study.ask()
        parameters = spec.suggest(trial)
        if number == failing:
            trial.set_user_attr("state", str(State.FAILED))
            study.tell(trial, state=TrialState.FAIL)
        else:
            end(study, trial, parameters)
    assert study.trials[failing].params in [t.params for t in study.trials[failing + 1 :]]
    records = to_records(study.trials, alive=False)
    data = judged(records, spec)
    distributions, ranges = spec.distributions(), ranges_of_baseline(spec)
    brackets = [
        find_bracket(x, distributions[x.key], ranges, data) for x in lines_of(distributions)
    ]
    opened = [bracket.width for bracket in brackets if bracket.unstable is not None]
    # all others are within a factor of 2, and this line is halved as soon as it is twice as wide as the widest
    assert max(opened) <= 4 * min(opened) + 1e-9


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sampler": {"name": "random", "worst": 0.1}, "space": RANGES, "baselines": {}},
            "sampler.worst: belongs to bisection, but got random; remove it",
        ),
        ({"baselines": {}}, "baselines: bisection starts at the one baseline, but got 0"),
        ({"scheduler": {"name": "asha"}}, "scheduler.name: bisection must know .* but got asha"),
        (
            {"space": {"seed": {"choices": [0, 1]}}, "baselines": {"a": {"seed": 0}}},
            "space: bisection needs a range",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes, said):
    with pytest.raises(SweepError, match=said):
        check_spec(spec_of(**changes))
