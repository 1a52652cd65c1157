"""Gradient norms and clipping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_up_sweep import made_up_data

from fsdet.config import TrainConfig
from sweeps.report.gradient_norms import POINTS, norms_section


def test_exploded_trials_are_red_lines_that_reach_their_peak():
    data = made_up_data(60)
    plot = norms_section(data).figures[0].plot
    assert plot.layout.yaxis.type == "log"
    lines = [t for t in plot.data if t.name == "exploded" and len(t.x) > 1]
    peaks = [t.series.peak for t in data.trials if t.series and t.exploded]
    drawn = np.array(lines[0].y, float)
    assert np.nanmax(drawn) == float(f"{max(p for p in peaks if p):.3g}")


def test_thresholds_of_best_and_baselines_are_marked():
    data = made_up_data(60)
    plot = norms_section(data).figures[0].plot
    dashed = {t.name: t for t in plot.data if t.line.dash == "dash"}
    assert {"clip threshold, best", "clip threshold, baseline"} <= dashed.keys()
    assert {1.0, 10.0} == {y for y in dashed["clip threshold, baseline"].y if y is not None}


def test_each_regime_is_counted_and_explained():
    section = norms_section(made_up_data(60))
    assert "clipped their gradients" in section.sentence
    said = " ".join(section.points)
    assert "the only regime in which the threshold matters under AdamW" in said
    assert "AdamW ignores a constant factor" in said


def test_a_mode_that_clips_each_tensor_has_no_regime():
    data = made_up_data(20)
    config = TrainConfig(gradient_clip_mode="update")
    section = norms_section(
        replace(data, trials=tuple(replace(t, config=config) for t in data.trials))
    )
    said = " ".join((section.sentence, *section.points))
    assert "clipped" not in said


def test_spikes_are_compared_between_exploded_and_other_trials():
    said = norms_section(made_up_data(60)).points
    assert (
        "Spikes of the trials that did not explode: 1.00% of the steps in norm, 0.00% in loss; largest g²/v 3.25."
        in said
    )
    assert any(line.startswith("Spikes of the trials that exploded: 25.00%") for line in said)


def test_long_runs_and_many_trials_stay_light():
    many = norms_section(made_up_data(500)).figures[0].plot
    assert sum(len(t.x) for t in many.data) < 1.3 * POINTS
    long = norms_section(made_up_data(8, steps=20_000)).figures[0].plot
    assert sum(len(t.x) for t in long.data) < 1.3 * POINTS


def test_without_steps_it_is_said():
    data = made_up_data(4)
    bare = tuple(replace(t, series=None) for t in data.trials)
    assert norms_section(replace(data, trials=bare)).sentence == "No gradient norm was recorded."
