import math

import numpy as np
import pytest
from scipy import stats

from fsdet.evaluation.intervals import half_width, standard_error


@pytest.mark.parametrize("count", [2, 3, 40])
def test_the_interval_equals_scipy(count):
    values = np.random.default_rng(count).random(count).tolist()
    low, high = stats.t.interval(0.95, count - 1, loc=np.mean(values), scale=stats.sem(values))
    assert half_width(values) == pytest.approx((high - low) / 2)
    assert standard_error(values) == pytest.approx(stats.sem(values))


def test_the_interval_of_three_draws_holds_the_truth_19_times_in_20():
    draws = np.random.default_rng(0).normal(0.5, 0.02, (4000, 3))
    held = [abs(np.mean(one) - 0.5) <= half_width(one.tolist()) for one in draws]
    assert 0.94 < np.mean(held) < 0.96


def test_a_single_value_has_no_interval():
    assert math.isnan(half_width([0.5]))
    assert math.isnan(standard_error([]))
