"""The steps of a trial: what is kept, and that thinning loses no spike."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.report.run_series import read_series, thin, to_series


def rows(norms: list[float], clipped: list[float]) -> list[dict[str, float]]:
    return [
        {"step": float(i), "grad/norm": norm, "grad/clipped": c, "train/share/dfl": 0.1 * i}
        for i, (norm, c) in enumerate(zip(norms, clipped, strict=True), 1)
    ]


def test_norms_that_are_not_finite_are_counted_and_left_out():
    series = to_series(rows([8.0, math.inf, 9.0], [0, 1, 0]))
    assert series is not None
    assert series.nonfinite == 1
    assert series.peak == 9
    assert np.isnan(series.norms[1])


@pytest.mark.parametrize(
    ("clipped", "regime"), [([0, 0], "never"), ([0, 1], "sometimes"), ([1, 1], "always")]
)
def test_regime_is_named_as_in_the_health_report(clipped, regime):
    series = to_series(rows([8.0, 9.0], clipped))
    assert series is not None
    assert series.regime == regime


def test_the_end_is_the_last_fifth():
    series = to_series(rows([100.0] * 8 + [1.0, 3.0], [1] * 10))
    assert series is not None
    assert series.last_norm == 2
    assert series.loss_shares == {"dfl": pytest.approx(0.95)}


def test_spike_scores_are_those_of_the_last_step_and_the_rms_the_largest():
    scores = [{"grad/spike_score": 0.5, "train/spike_score": 0.0, "grad/rms": 2.0},
              {"grad/spike_score": 0.25, "train/spike_score": 0.25, "grad/rms": math.nan}]  # fmt: skip
    series = to_series(a | b for a, b in zip(rows([8.0, 9.0], [0, 0]), scores, strict=True))
    assert series is not None
    assert (series.norm_spikes, series.loss_spikes, series.peak_rms) == (0.25, 0.25, 2.0)
    bare = to_series(rows([8.0], [0]))
    assert bare is not None
    assert (bare.norm_spikes, bare.loss_spikes, bare.peak_rms) == (None, None, None)


def test_a_run_without_steps_has_no_series(tmp_path):
    assert read_series(tmp_path) is None
    (tmp_path / "steps.jsonl").write_text(json.dumps({"step": 1, "grad/norm": "inf"}) + '\n{"st')
    series = read_series(tmp_path)
    assert series is not None
    assert (series.peak, series.nonfinite, series.regime) == (None, 1, None)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=500), st.integers(4, 60))
def test_thinned_series_keep_both_extremes_and_both_ends(values, points):
    steps, norms = np.arange(len(values)), np.array(values)
    x, y = thin(steps, norms, points)
    assert len(x) <= points
    assert (y.min(), y.max()) == (norms.min(), norms.max())
    assert (x[0], x[-1]) == (0, len(values) - 1)
    assert np.array_equal(norms[x], y)
    assert np.all(np.diff(x) > 0)


def test_a_spike_of_one_step_in_100_000_survives():
    norms = np.full(100_000, 8.0)
    norms[71_234] = 5e5
    steps, kept = thin(np.arange(100_000), norms, 200)
    assert steps[np.argmax(kept)] == 71_234
