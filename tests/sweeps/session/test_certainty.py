"""How sure a result is: against simulation, where a formula is used."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.config.sections import Objective
from sweeps.session.certainty import (
    chance_better,
    chance_of_record,
    gain_of_doubling,
    more_trials,
    percent,
)
from sweeps.states import State
from sweeps.study.records import TrialRecord

MORE, LESS = Objective(), Objective(mode="min")


def completed(value: float | None, error: float | None = 0.01, number: int = 0) -> TrialRecord:
    return TrialRecord(number, State.COMPLETED, {}, value, error)


def test_equal_values_are_better_with_even_chances():
    assert chance_better(completed(0.3), completed(0.3), MORE) == pytest.approx(0.5)


@pytest.mark.parametrize(("objective", "expected"), [(MORE, 0.9772), (LESS, 0.0228)])
def test_two_standard_deviations_of_the_difference(objective, expected):
    best, other = completed(0.3 + 2 * np.hypot(0.01, 0.02), 0.01), completed(0.3, 0.02)
    assert chance_better(best, other, objective) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("other", [completed(None), completed(0.3, None)])
def test_without_value_or_error_nothing_is_claimed(other):
    assert chance_better(completed(0.3), other, MORE) is None


def test_chance_of_a_record_is_that_of_simulated_trials():
    draws = np.random.default_rng(0).random((20_000, 30))
    records = draws[:, 20:].max(1) > draws[:, :20].max(1)
    assert chance_of_record(20, 10) == pytest.approx(records.mean(), abs=0.01)


def test_gain_of_doubling_is_that_of_simulated_halves():
    chance = np.random.default_rng(0)
    values = chance.normal(size=40)
    halves = [values[chance.random(40) < 0.5].max() for _ in range(20_000)]
    assert gain_of_doubling(values.tolist()) == pytest.approx(
        values.max() - np.mean(halves), abs=0.01
    )


def test_gain_of_equal_values_is_none():
    assert gain_of_doubling([0.3, 0.3, 0.3]) == pytest.approx(0)


def test_sentence_counts_all_trials_but_baselines():
    pruned = [TrialRecord(n, State.PRUNED, {}, 0.1) for n in range(10, 17)]
    done = [completed(value, 0.01, n) for n, value in enumerate((0.3, 0.28, 0.2))]
    baseline = TrialRecord(9, State.COMPLETED, {}, 0.9, 0.01, baseline="b")
    said = more_trials([*pruned, *done, baseline], MORE)
    assert said is not None
    assert said.startswith("another 10 trials would find a better one with a chance of 50 %")
    assert f"better by about {2 * gain_of_doubling([0.3, 0.28, 0.2]):.4f}; " in said
    assert "two standard errors of a difference are 0.0283" in said
    assert more_trials([*pruned, *done[:2], baseline], MORE) is None


@pytest.mark.parametrize(
    ("chance", "text"), [(0.999, "over 99 %"), (0.001, "under 1 %"), (0.654, "65 %")]
)
def test_percent_claims_no_certainty(chance, text):
    assert percent(chance) == text
