"""Long series are thinned, and no extreme is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.tracking.thinning import DENSE, kept


def test_the_first_steps_are_all_kept():
    steps = np.arange(1.0, DENSE + 1)
    assert kept(steps, np.sin(steps)).all()


@pytest.mark.parametrize("chunk", [100_000, 250])
def test_a_hundred_thousand_steps_stay_browsable_and_a_spike_survives(chunk):
    steps = np.arange(1.0, 100_001)
    values = np.random.default_rng(0).normal(size=len(steps))
    values[[2_500, 54_321, 99_000]] = 1e6, 1e9, -1e9
    mask = np.concatenate(
        [kept(steps[i : i + chunk], values[i : i + chunk]) for i in range(0, len(steps), chunk)]
    )
    assert mask[[2_500, 54_321, 99_000, 99_999]].all()
    assert mask.sum() < 10_000


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 50_000), st.integers(1, 3_000), st.integers(0, 9))
def test_every_piece_keeps_its_smallest_largest_and_last_value(first, count, seed):
    steps = np.arange(first, first + count, dtype=float)
    values = np.random.default_rng(seed).normal(size=count)
    mask = kept(steps, values)
    assert mask[[values.argmin(), values.argmax(), -1]].all()


def test_what_is_not_finite_hides_no_extreme():
    steps = np.arange(50_001.0, 50_101)
    values = np.full(100, 2.0)
    values[:50], values[60] = np.nan, 5.0
    assert kept(steps, values)[60]
    assert not kept(steps, np.full(100, np.nan)).any()
