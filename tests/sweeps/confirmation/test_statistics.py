"""What a few seeds can say: against scipy, against brute force, and by simulation."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sweeps.config import ConfirmSpec
from sweeps.confirmation.statistics import (
    ALPHA,
    LEAST_SEEDS,
    Difference,
    Estimate,
    adjust,
    estimate,
    holm,
    paired,
    power,
    verdict,
)

SEARCH_SPACES = Path(__file__).parents[3] / "search_spaces"

numbers = st.floats(-1, 1).map(lambda x: round(x, 4))
pairs = st.lists(st.tuples(numbers, numbers), min_size=LEAST_SEEDS, max_size=8)


@given(st.lists(numbers, min_size=2, max_size=9))
def test_interval_is_student_s(values):
    found = estimate(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_single_value_has_no_interval():
    assert math.isnan(estimate([0.3]).low)


@given(pairs)
def test_paired_test_is_scipy_s_and_swaps_its_sign(values):
    a, b = ({seed: pair[i] for seed, pair in enumerate(values)} for i in (0, 1))
    found, swapped = paired(a, b), paired(b, a)
    assert found is not None
    assert swapped is not None
    assert swapped.estimate.mean == pytest.approx(-found.estimate.mean, abs=1e-12)
    differences = [x - y for x, y in values]
    if np.std(differences) > 1e-9:
        expected = stats.ttest_rel(list(a.values()), list(b.values()))
        assert found.p == pytest.approx(expected.pvalue, abs=1e-9)


def test_only_common_seeds_are_compared():
    found = paired({1: 0.5, 2: 0.6, 5: 0.8, 3: 9.0}, {2: 0.5, 5: 0.6, 1: 0.5, 4: -9.0})
    assert found is not None
    assert found.estimate.count == 3
    assert found.estimate.mean == pytest.approx(0.1)


def test_two_common_seeds_are_too_few_however_equal_their_differences():
    assert paired({1: 0.5, 2: 0.6, 3: 0.1}, {1: 0.4, 2: 0.5, 4: 0.1}) is None


def test_a_confirmation_asks_for_as_many_seeds_as_a_comparison_takes():
    assert ConfirmSpec(seeds=LEAST_SEEDS).seeds == LEAST_SEEDS
    with pytest.raises(ValueError, match="at least 3 seeds, but got 2; ask for 5 or more"):
        ConfirmSpec(seeds=LEAST_SEEDS - 1)


@pytest.mark.parametrize("count", range(LEAST_SEEDS, 9))
@pytest.mark.parametrize("values", [[0.5], [0.5, 0.6, 0.7]], ids=["constant", "by seed"])
def test_equal_differences_have_the_p_value_of_the_sign_test(values, count):
    """`0.6 - 0.5` and `0.7 - 0.6` differ by rounding alone."""
    a = {seed: values[seed % len(values)] for seed in range(count)}
    found, none = paired(a, {seed: x - 0.1 for seed, x in a.items()}), paired(a, a)
    assert found is not None
    assert none is not None
    assert found.p == pytest.approx(stats.binomtest(count, count).pvalue)
    assert none.p == 1
    assert math.isnan(found.estimate.half)
    assert verdict(none, 1, "max") == "within noise"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(p_values):
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
def test_verdict(mean, adjusted, mode, word):
    difference = Difference(Estimate(mean, 0.01, 5), 0.01)
    assert verdict(difference, adjusted, mode) == word


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_no_verdict_goes_against_its_own_interval(p_values):
    found = adjust(p_values)
    assert all(a >= p for a, p in zip(found, p_values, strict=True))
    assert adjust(p_values[:1]) == p_values[:1]


@pytest.mark.parametrize("seeds", [3, 5, 8, 10])
@pytest.mark.parametrize("comparisons", [1, 2, 3, 6])
@pytest.mark.parametrize("shared", [0, 0.5])
def test_power_is_that_of_the_corrected_test(seeds, comparisons, shared):
    limit = stats.t.isf(min(0.025, 0.05 / comparisons), seeds - 1)
    shift = 2 * (seeds / (2 - 2 * shared)) ** 0.5
    expected = stats.nct.sf(limit, seeds - 1, shift)
    assert power(2, seeds, comparisons, shared) == pytest.approx(expected, abs=1e-6)


def test_power_is_what_the_paired_test_does():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (4000, 2, 5)) + rng.normal(0, 1, (4000, 1, 5))
    values[:, 0] += 2 * 2**0.5  # both spread by the square root of 2, half of it in common
    found = [
        paired(dict(enumerate(first)), dict(enumerate(second))) for first, second in values.tolist()
    ]
    share = np.mean([verdict(d, adjust([d.p])[0], "max") == "better" for d in found if d])
    assert share == pytest.approx(power(2, 5, shared=0.5), abs=0.015)


def test_documented_power_is_the_calculated_one():
    said = (SEARCH_SPACES / "README.md").read_text(encoding="utf-8")
    for seeds in (3, 5, 8, 10):
        for comparisons in (1, 3, 6):
            one, two = (
                " to ".join(f"{100 * power(g, seeds, comparisons, s):.0f}" for s in (0, 0.5))
                for g in (1, 2)
            )
            assert f"| {seeds} | {comparisons} | {two} % | {one} % |" in said
    in_schema = ConfirmSpec.model_fields["seeds"].description
    for seeds in (3, 5, 8):
        low, high = (100 * power(2, seeds, 3, shared) for shared in (0, 0.5))
        assert f"{low:.0f} to {high:.0f} %" in " ".join(str(in_schema).split())
