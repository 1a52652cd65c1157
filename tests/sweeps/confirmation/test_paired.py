"""What a few seeds can say: against scipy, against brute force, and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.confirmation.paired import (
    ALPHA,
    Difference,
    Estimate,
    adjust,
    estimate,
    holm,
    paired,
    verdict,
)

numbers = st.floats(-1, 1).map(lambda x: round(x, 4))
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8)


@given(st.lists(numbers, min_size=2, max_size=9))
def test_interval_is_student_s(values: list[float]) -> None:
    found = estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_single_value_has_no_interval() -> None:
    assert math.isnan(estimate([0.3]).low)


@given(pairs)
def test_paired_test_is_scipy_s_and_swaps_its_sign(values: list[tuple[float, float]]) -> None:
    a, b = ({seed: pair[i] for seed, pair in enumerate(values)} for i in (0, 1))
    found, swapped = paired(a, b), paired(b, a)
    assert found is not None
    assert swapped is not None
    assert swapped.estimate.mean == pytest.approx(-found.estimate.mean, abs=1e-12)
    differences = [x - y for x, y in values]
    if np.std(differences) > 1e-9:
        expected = stats.ttest_rel(list(a.values()), list(b.values()))
        assert found.p == pytest.approx(expected.pvalue, abs=1e-9)


def test_only_common_seeds_are_compared() -> None:
    found = paired({1: 0.5, 2: 0.6, 3: 9.0}, {2: 0.5, 1: 0.4, 4: -9.0})
    assert found is not None
    assert found.estimate.count == 2
    assert found.estimate.mean == pytest.approx(0.1)
    assert paired({1: 0.5, 2: 0.6}, {2: 0.5, 3: 0.5}) is None


def test_seeds_without_effect_make_differences_exact() -> None:
    equal, other = (
        paired({1: 0.5, 2: 0.5}, {1: 0.5, 2: 0.5}),
        paired({1: 0.5, 2: 0.5}, {1: 0, 2: 0}),
    )
    assert equal is not None
    assert other is not None
    assert (equal.p, other.p) == (1, 0)
    assert verdict(equal, 1, "max") == "within noise"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    """Brute force: a hypothesis falls when every set that holds it falls by Bonferroni."""
    indices = range(len(p_values))
    sets = [s for n in range(1, len(p_values) + 1) for s in itertools.combinations(indices, n)]
    expected = [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets if i in s) for i in indices
    ]
    assert holm(p_values) == pytest.approx(expected)
    assert holm([]) == []


@pytest.mark.parametrize(
    ("mean", "adjusted", "mode", "word"),
    [
        (0.1, 0.01, "max", "better"),
        (-0.1, 0.01, "max", "worse"),
        (-0.1, 0.01, "min", "better"),
        (0.1, 0.01, "min", "worse"),
        (0.1, ALPHA, "max", "within noise"),
    ],
)
def test_verdict(mean: float, adjusted: float, mode: str, word: str) -> None:
    difference = Difference(Estimate(mean, 0.01, 5), 0.01)
    assert verdict(difference, adjusted, mode) == word  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_no_verdict_goes_against_its_own_interval(p_values: list[float]) -> None:
    found = adjust(p_values)
    assert all(a >= p for a, p in zip(found, p_values, strict=True))
    assert adjust(p_values[:1]) == p_values[:1]
