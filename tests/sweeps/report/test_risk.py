"""The estimate of the probability to explode, on outcomes whose cause is known."""

from __future__ import annotations

import numpy as np
import pytest

from sweeps.report.risk import find_map, find_split, probability


def outcomes_of(cause: int, trials: int = 120, settings: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and explosions above 0.7 of the setting `cause`."""
    positions = np.random.default_rng(3).random((trials, settings))
    return positions, (positions[:, cause] > 0.7).astype(float)


@pytest.mark.parametrize("cause", [0, 3])
def test_the_setting_that_explodes_is_found(cause):
    positions, exploded = outcomes_of(cause)
    found = find_map(positions, exploded)
    assert cause in found.columns
    assert len(found.columns) == 2
    assert found.predicts
    split = find_split(positions, exploded, found.columns)
    assert split is not None
    assert split.column == cause
    assert split.threshold == pytest.approx(0.7, abs=0.03)
    assert split.below[0] == 0
    assert split.above[0] == split.above[1] == exploded.sum()


def test_explosions_by_chance_are_not_explained():
    chance = np.random.default_rng(0)
    wrong = 0
    for _ in range(20):
        found = find_map(chance.random((60, 5)), (chance.random(60) < 0.25).astype(float))
        wrong += found.predicts
    assert wrong <= 2


def test_one_setting_alone_is_a_map_too():
    positions, exploded = outcomes_of(0, settings=1)
    assert find_map(positions, exploded).columns == (0,)


def test_far_from_all_trials_it_is_the_overall_share():
    positions = np.array([[0.0], [0.05], [0.1], [0.12]])
    exploded = np.array([1.0, 1.0, 0.0, 1.0])
    p, near = probability(np.array([[1.0], [0.02]]), positions, exploded, 0.06)
    assert p[0] == pytest.approx(0.75)
    assert near[0] < 1e-6
    assert p[1] > 0.8


def test_a_trial_without_one_of_the_settings_has_no_weight():
    positions = np.array([[0.5, np.nan], [0.5, 0.5]])
    p, near = probability(np.array([[0.5, 0.5]]), positions, np.array([1.0, 0.0]), 0.1)
    assert near[0] == pytest.approx(1)
    assert p[0] == pytest.approx(0.25)


def test_2000_trials_are_chosen_from_quickly():
    positions, exploded = outcomes_of(2, trials=2000, settings=10)
    assert 2 in find_map(positions, exploded).columns
