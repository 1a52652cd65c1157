"""Which configurations are confirmed, and a winner taken apart."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import small_spec
from hypothesis import given
from hypothesis import strategies as st

from sweeps.config import ConfirmSpec, SweepSpec
from sweeps.confirmation.candidates import ablations_of, candidates_of, presets_of, seeds_of
from sweeps.states import State
from sweeps.study.records import TrialRecord

SPACE: dict[str, Any] = {
    "lr": {"low": 0.01, "high": 10},
    "gradient_clip_mode": {"choices": ["norm", "agc", "none"]},
    "gradient_clip_norm": {"low": 0.1, "high": 100, "when": {"gradient_clip_mode": "norm"}},
    "agc_clip_factor": {"choices": [0.01, 0.1], "when": {"gradient_clip_mode": "agc"}},
    "fusion_lr_mult": {"low": 1, "high": 9},
    "head_lr_mult": {"tie": "fusion_lr_mult", "times": 2},
}
HAND = {"lr": 1.0, "gradient_clip_mode": "norm", "gradient_clip_norm": 10.0, "fusion_lr_mult": 2.0}
FOUND = {"lr": 2.0, "gradient_clip_mode": "agc", "agc_clip_factor": 0.1, "fusion_lr_mult": 2.0}


def conditional(**changes: Any) -> SweepSpec:
    return small_spec(space=SPACE, baselines={"by hand": HAND}, **changes)


def trial(number: int, lr: float, value: float, state: State = State.COMPLETED) -> TrialRecord:
    return TrialRecord(number, state, {"lr": lr}, value)


def labels(trials: list[TrialRecord], top_k: int = 2, **changes: Any) -> list[str]:
    spec = small_spec(**changes)
    return [c.label for c in candidates_of(spec, ConfirmSpec(top_k=top_k), trials)]


TRIALS = [
    trial(0, 1.0, 0.5),
    trial(1, 2.0, 0.9, State.PRUNED),
    trial(2, 3.0, 0.9, State.INFEASIBLE),
    trial(3, 4.0, 0.7),
    trial(4, 4.0, 0.7),
    trial(5, 5.0, 0.6),
]


def test_best_completed_ones_and_all_baselines_each_once():
    assert labels(TRIALS) == ["trial 3", "trial 5"]
    assert labels(TRIALS, top_k=9) == ["trial 3", "trial 5", "trial 0"]
    assert labels(TRIALS, baselines={"a": {"lr": 0.1}}) == ["trial 3", "trial 5", "a"]
    assert labels([], baselines={"a": {"lr": 0.1}}) == ["a"]


def test_baseline_among_the_best_takes_no_place():
    assert labels(TRIALS, baselines={"a": {"lr": 4.0}}) == ["trial 5", "trial 0", "a"]


def test_less_is_better_where_the_mode_says_so():
    assert labels(TRIALS, top_k=1, objective={"mode": "min"}) == ["trial 0"]


@given(st.integers(990, 1010), st.integers(3, 9))
def test_seeds_are_fresh(searched, count):
    spec = small_spec(fixed={"seed": searched})
    seeds = seeds_of(spec, ConfirmSpec(seeds=count))
    assert len(set(seeds)) == count
    assert searched not in seeds
    assert min(seeds) >= 1000


def test_every_run_has_a_folder_of_its_own_whatever_baselines_are_called():
    names = ["a/b", "a b", "..", "trial_0001", "ä", "a%2Fb"]
    spec = small_spec(baselines={name: {"lr": 1 + i / 9} for i, name in enumerate(names)})
    chosen = candidates_of(spec, ConfirmSpec(), [trial(1, 5.0, 0.5)])
    keys = [preset.key for preset in presets_of(chosen, [1000, 1001])]
    assert len(set(keys)) == 14
    assert all(len(key.split("/")) == 2 and key.isascii() for key in keys)


def test_setting_back_takes_along_what_depends_on_it():
    spec = conditional()
    won = TrialRecord(4, State.COMPLETED, FOUND, 0.9)
    winner, base = candidates_of(spec, ConfirmSpec(), [won])
    found = {c.factor: c.parameters for c in ablations_of(spec, winner, base)}
    assert found == {
        "lr": {**FOUND, "lr": 1.0},
        "gradient_clip_mode": {**HAND, "lr": 2.0},
    }
    for parameters in found.values():
        assert spec.accepts(parameters)
    assert spec.config(found["lr"]).head_lr_mult == 4


def test_only_difference_set_back_is_the_baseline_itself():
    spec = conditional()
    won = TrialRecord(4, State.COMPLETED, {**HAND, "lr": 3.0}, 0.9)
    winner, base = candidates_of(spec, ConfirmSpec(), [won])
    (only,) = ablations_of(spec, winner, base)
    assert (only.folder, only.parameters) == (base.folder, HAND)


def test_setting_without_a_value_in_either_is_left_out():
    space = {
        "gradient_clip_mode": {"choices": ["norm", "none"]},
        "bbox_loss": {"choices": ["ciou", "wiou_v3"]},
        "gradient_clip_norm": {
            "low": 1,
            "high": 2,
            "when": {"gradient_clip_mode": "norm", "bbox_loss": "ciou"},
        },
    }
    base = {"gradient_clip_mode": "norm", "bbox_loss": "wiou_v3"}
    spec = small_spec(space=space, baselines={"base": base})
    won = TrialRecord(4, State.COMPLETED, {"gradient_clip_mode": "none", "bbox_loss": "ciou"}, 0.9)
    found = ablations_of(spec, *candidates_of(spec, ConfirmSpec(), [won]))
    assert [c.factor for c in found] == ["bbox_loss"]


@pytest.mark.parametrize("key", ["top_k", "seeds"])
def test_confirmation_of_nothing_is_refused(key):
    with pytest.raises(ValueError, match=key):
        ConfirmSpec(**{key: 0})
