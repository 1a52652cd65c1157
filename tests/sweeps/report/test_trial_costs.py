"""Costs and the timeline."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_sweep import made_up_data

from sweeps.report.sweep_data import ShownTrial
from sweeps.report.trial_costs import Stretch, assign_lanes, costs_section, idle_of, stretches_of
from sweeps.states import State
from sweeps.study.records import TrialRecord

NOBODY = ShownTrial(TrialRecord(0, State.COMPLETED, {}), {})


def lanes_of(*times: tuple[float, float]) -> list[Stretch]:
    return assign_lanes([Stretch(NOBODY, "completed", begin, end) for begin, end in times])


def test_trials_that_overlap_are_on_different_workers():
    assert [one.lane for one in lanes_of((0, 10), (1, 5), (6, 9), (10.2, 12))] == [0, 1, 1, 0]


def test_idle_time_is_what_no_trial_fills():
    idle, whole = idle_of(lanes_of((0, 10), (0, 4), (6, 10)))
    assert (idle, whole) == (pytest.approx(2), pytest.approx(20))


def test_the_pause_between_two_sessions_is_not_idle():
    idle, whole = idle_of(lanes_of((0, 10), (5000, 5010)))
    assert (idle, whole) == (pytest.approx(0), pytest.approx(20))


def test_the_sentence_adds_up_and_the_timeline_has_every_stretch():
    data = made_up_data(30)
    section = costs_section(data)
    assert section.sentence.startswith("30 trials took ")
    assert "of the time of 2 workers, " in section.sentence
    timeline = section.figures[1].plot
    assert sum(len(bar.x) for bar in timeline.data) == len(stretches_of(data)) == 30


def test_times_that_were_not_recorded_are_not_made_up():
    section = costs_section(replace(made_up_data(30), timed=False))
    assert [figure.key for figure in section.figures] == ["costs"]
    assert section.sentence.endswith("when each of them ran was not recorded.")


def test_runs_of_the_confirmation_are_counted():
    data = made_up_data(10)
    run = replace(
        data.trials[0], record=replace(data.trials[0].record, legs=((1.8e9, 1.8e9 + 60),))
    )
    section = costs_section(replace(data, confirmation_runs=(run,)))
    assert " % in the confirmation" in section.sentence
