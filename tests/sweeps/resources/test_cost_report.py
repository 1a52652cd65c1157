"""What the cost of a sweep is told as."""

from __future__ import annotations

import pytest
from conftest import small_spec
from measured_costs import GB, MEASURED

from sweeps.resources.cost import (
    WORKER_BYTES,
    estimate,
)
from sweeps.resources.cost_report import cost_lines, duration


def test_trials_that_do_not_fit_are_warned_of():
    spec = small_spec(trials=10)
    needed = 4 * (GB + WORKER_BYTES)
    roomy, tight = (estimate(spec, MEASURED, 4, free) for free in (needed, needed - 1))
    assert not any("warning" in line for line in cost_lines(spec, roomy))
    assert any("warning" in line and "max_concurrent" in line for line in cost_lines(spec, tight))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59.6, "60 s"),
        (150, "2 min 30 s"),
        (599.9, "10 min 0 s"),
        (930, "16 min"),
        (9000, "2 h 30 min"),
        (180000, "2.1 days"),
    ],
)
def test_times_are_told_in_words(seconds, words):
    assert duration(seconds) == words
