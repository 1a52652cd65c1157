"""Slices, contour and parallel coordinates, by Optuna."""

from __future__ import annotations

from made_up_sweep import made_up_data

from sweeps.report.comparable import comparable
from sweeps.report.importance import importances
from sweeps.report.landscape import FIELD, LINES, correlations, landscape_sections, ordered_keys
from sweeps.report.section import Section
from sweeps.report.sweep_data import SweepData


def sections(data: SweepData) -> list[Section]:
    view = comparable(data)
    return landscape_sections(data, view, importances(data, view))


def test_the_contour_is_over_clip_norm_and_dfl_weight():
    slices, _ = sections(made_up_data(60))
    contour = slices.figures[0]
    assert contour.key == "contour"
    titles = {axis.title.text for axis in (contour.plot.layout.xaxis, contour.plot.layout.yaxis)}
    assert titles == {"clip norm", "dfl weight"}
    assert {f.key for f in slices.figures[1:]} == {
        f"slice_{key}" for key in made_up_data(2).spec.space
    }


def test_the_most_important_setting_comes_first():
    data = made_up_data(120)
    view = comparable(data)
    assert ordered_keys(data, view, importances(data, view))[0] == "head_lr_mult"


def test_many_trials_do_not_make_heavy_figures():
    slices, parallel = sections(made_up_data(2000))
    assert len(parallel.figures[0].plot.data) <= LINES
    assert "the best 100 trials and 100 others" in parallel.caption
    contour = slices.figures[0].plot.data[0]
    assert len(contour.x) <= FIELD + 2


def test_few_trials_are_said_not_drawn():
    for section in sections(made_up_data(2)):
        assert section.figures == ()
        assert section.sentence.startswith("Too few trials to draw: 2 trials")


def test_trends_are_told_from_clouds():
    data = made_up_data(40)
    found = correlations(data, comparable(data))
    assert found["head_lr_mult"].p < 0.01
    assert "higher head lr is better" in sections(data)[0].sentence
