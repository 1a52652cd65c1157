"""Importances: what matters is told from what does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from made_up_sweep import made_up_data

from sweeps.report.comparable import Comparable, comparable
from sweeps.report.importance import importance_section, importances


def test_the_setting_that_decides_is_beyond_chance_and_others_are_not():
    data = made_up_data(120)
    view = comparable(data)
    found = importances(data, view)
    assert found[0].key == "head_lr_mult"
    assert found[0].low <= found[0].value <= found[0].high
    assert [one.key for one in found if one.beyond_chance] == ["head_lr_mult"]
    section = importance_section(data, view, found)
    assert section.sentence.startswith("Head lr matters most, with ")
    assert "cannot be told from a setting without effect" in section.sentence


def test_values_by_chance_make_no_setting_important():
    data = made_up_data(120)
    chance = np.random.default_rng(5)
    view = comparable(data)
    noise = replace(view, values={n: float(chance.random()) for n in view.values})
    found = importances(data, noise)
    assert sum(one.beyond_chance for one in found) <= 1


def test_a_word_where_trials_are_too_few():
    data = made_up_data(6)
    view = comparable(data)
    section = importance_section(data, view, importances(data, view))
    assert section.figures == ()
    assert section.sentence.startswith("Too few trials to say which settings matter")
    assert importances(data, Comparable({0: 0.1, 1: 0.1})) == []
