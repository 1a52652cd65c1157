"""Values that may be compared: those of one epoch."""

from __future__ import annotations

import optuna
import pytest
from made_up_sweep import EPOCHS, RUNGS, made_up_data
from optuna.visualization import plot_slice

from sweeps.report.comparable import comparable, pairs_of, study_of
from sweeps.states import State


def test_it_is_the_latest_epoch_that_enough_trials_reached():
    few, many = made_up_data(40), made_up_data(200)
    view = comparable(few)
    assert view.epoch in RUNGS
    assert len(view.values) >= 20
    assert all(few.trials[n].curve[view.epoch] == v for n, v in view.values.items())
    assert comparable(many).epoch is None
    assert f"at epoch {view.epoch}, which" in view.describe("val/nAP50")


def test_exploded_trials_have_no_comparable_value():
    data = made_up_data(60)
    exploded = {t.number for t in data.trials if t.exploded}
    assert exploded
    assert exploded.isdisjoint(comparable(data).values)


def test_with_few_trials_it_is_the_epoch_with_the_most_values():
    view = comparable(made_up_data(8))
    assert view.few
    assert view.epoch == RUNGS[0]


def test_the_study_holds_the_trials_with_these_values():
    data = made_up_data(200)
    pairs = pairs_of(data, comparable(data))
    study = study_of(data, pairs)
    assert study.direction is optuna.study.StudyDirection.MAXIMIZE
    assert [t.value for t in study.trials] == [value for _, value in pairs]
    assert {t.record.state for t, _ in pairs} == {State.COMPLETED}
    assert max(data.trials[0].curve) == EPOCHS
    (trace,) = plot_slice(study, params=["head_lr_mult"]).data
    assert len(trace.x) == len(pairs)


def test_importances_do_not_depend_on_how_the_study_is_held():
    data = made_up_data(120)
    given = study_of(data, pairs_of(data, comparable(data)))
    stored = optuna.create_study(direction="maximize")
    stored.add_trials(given.trials)
    expected = optuna.importance.get_param_importances(stored)
    assert optuna.importance.get_param_importances(given) == pytest.approx(expected)
