"""The table of trials."""

from __future__ import annotations

from dataclasses import replace

from made_up_sweep import made_up_data

from sweeps.report.section import SortableTable
from sweeps.report.trial_table import in_order, table_section
from sweeps.states import State


def test_every_trial_is_a_row_with_all_settings_and_its_reason():
    data = made_up_data(40)
    section = table_section(data)
    table = section.table
    assert isinstance(table, SortableTable)
    assert len(table.rows) == len(table.classes) == 40
    headings = [name for name, _ in table.columns]
    assert headings[:4] == ["trial", "name", "state", "val/nAP50"]
    best = dict(zip(headings, table.rows[0], strict=True))
    spikes = (best["norm spikes %"], best["loss spikes %"], best["peak g²/v"])
    assert spikes == (1.0, 0.0, 3.25)
    assert {"clip norm", "dfl weight", "fusion lr", "head lr"} <= set(headings)
    reasons = [row[-1] for row in table.rows if row[2] == "infeasible"]
    assert reasons
    assert all("norm_ratio" in reason for reason in reasons)


def test_the_best_comes_first_and_exploded_ones_after_pruned_ones():
    data = made_up_data(40)
    ordered = in_order(data)
    assert ordered[0] is data.best
    states = [trial.record.state for trial in ordered]
    assert states == sorted(states, key=[State.COMPLETED, State.PRUNED, State.INFEASIBLE].index)


def test_the_ranks_of_the_baselines_are_said():
    sentence = table_section(made_up_data(40)).sentence
    assert "; of the " in sentence
    assert "baseline before at " in sentence


def test_numbers_are_short_and_missing_values_stay_missing():
    data = made_up_data(3)
    bare = replace(data.trials[2], series=None)
    table = table_section(replace(data, trials=(*data.trials[:2], bare))).table
    assert isinstance(table, SortableTable)
    (row,) = (row for row in table.rows if row[0] == 2)
    assert row[7] is row[8] is None
    assert all(len(str(cell)) < 9 for cell in row if isinstance(cell, float))
