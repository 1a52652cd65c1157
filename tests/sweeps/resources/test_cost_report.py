"""What the cost of a sweep is told as."""

from __future__ import annotations

from conftest import small_spec
from measured_costs import GB, MEASURED

from sweeps.resources.cost import (
    WORKER_BYTES,
    estimate,
)
from sweeps.resources.cost_report import cost_lines


def test_trials_that_do_not_fit_are_warned_of():
    spec = small_spec(trials=10)
    needed = 4 * (GB + WORKER_BYTES)
    roomy, tight = (estimate(spec, MEASURED, 4, free) for free in (needed, needed - 1))
    assert not any("warning" in line for line in cost_lines(spec, roomy))
    assert any("warning" in line and "max_concurrent" in line for line in cost_lines(spec, tight))
