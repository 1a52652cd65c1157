"""Best so far over compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_sweep import made_up_data

from sweeps.report.best_so_far import best_section, compute_at_ends, records_of
from sweeps.report.sweep_data import ShownTrial
from sweeps.states import State
from sweeps.study.records import TrialRecord


def trial(number: int, *legs: tuple[float, float], value: float | None = None) -> ShownTrial:
    state = State.PRUNED if value is None else State.COMPLETED
    return ShownTrial(TrialRecord(number, state, {}, value=value, legs=legs), {})


def test_compute_counts_what_all_workers_had_trained_until_a_trial_ended():
    trials = [trial(0, (0, 10)), trial(1, (0, 4), (12, 20)), trial(2, (5, 9))]
    assert compute_at_ends(trials) == {0: 18, 1: 26, 2: 17}


def test_steps_are_the_new_bests_in_the_order_of_their_ends():
    shown = (
        trial(0, (0, 10), value=0.2),
        trial(1, (0, 4), value=0.1),
        trial(2, (4, 9), value=0.15),
    )
    data = replace(made_up_data(2), trials=shown)
    steps = records_of(data, compute_at_ends(shown))
    assert [t.number for _, t in steps] == [1, 2, 0]


def test_the_sentence_says_what_the_second_half_brought():
    early = (trial(0, (0, 1), value=0.2), trial(1, (1, 20), value=0.1))
    assert best_section(replace(made_up_data(2), trials=early)).sentence.endswith(
        "the second half of the compute found nothing better."
    )
    late = (trial(0, (0, 1), value=0.1), trial(1, (1, 20), value=0.3))
    assert "improved it by 0.2000." in best_section(replace(made_up_data(2), trials=late)).sentence


def test_gains_within_the_error_are_called_noise():
    noisy = replace(trial(1, (1, 20), value=0.11).record, standard_error=0.02)
    shown = (trial(0, (0, 1), value=0.1), ShownTrial(noisy, {}))
    sentence = best_section(replace(made_up_data(2), trials=shown)).sentence
    assert sentence.endswith("which is within its noise.")


def test_baselines_are_lines_and_nothing_completed_is_said():
    plot = best_section(made_up_data(40)).figures[0].plot
    assert {a.text for a in plot.layout.annotations} == {"before", "after"}
    empty = replace(made_up_data(2), trials=(trial(0, (0, 1)),))
    assert best_section(empty).sentence.startswith("No trial has completed")


def test_total_is_the_end_of_the_line():
    data = made_up_data(40)
    total = sum(t.record.seconds for t in data.trials)
    line = best_section(data).figures[0].plot.data[0]
    assert line.x[-1] == pytest.approx(total / 60)
