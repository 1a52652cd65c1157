"""Spearman's correlation, against SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from sweeps.report.rank_correlation import rank_correlation


@pytest.mark.parametrize("decimals", [1, 6])
def test_it_is_that_of_scipy_with_and_without_ties(decimals):
    chance = np.random.default_rng(0)
    a = chance.normal(size=40).round(decimals)
    b = (0.4 * a + chance.normal(size=40)).round(decimals)
    found, expected = rank_correlation(a, b), spearmanr(a, b)
    assert found is not None
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


def test_pairs_without_a_number_are_left_out():
    a = [*range(10), math.nan]
    found = rank_correlation(a, a)
    assert found is not None
    assert (found.count, found.rho, found.p) == (10, pytest.approx(1), 0)


def test_nothing_is_said_of_few_or_equal_values():
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert rank_correlation([1.0] * 20, range(20)) is None
