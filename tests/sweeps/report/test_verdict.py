"""The verdict: truthful about noise, seeds and baselines."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_up_sweep import confirmed, made_up_data

from sweeps.report.style import GREEN, GREY
from sweeps.report.sweep_data import SweepData
from sweeps.report.verdict import verdict_section
from sweeps.states import State

COMMANDS = (
    ("python -m sweeps.run x.yaml --resume --set confirm.seeds=5", "confirm"),
    ("make ui", "browse"),
    ("python -m sweeps.rerun made_up", "run again"),
)


def keys_of(data: SweepData) -> list[str]:
    return [figure.key for figure in verdict_section(data).figures]


def test_a_confirmed_winner_is_named_with_interval_and_chance():
    section = verdict_section(confirmed(made_up_data(40), gain=0.08))
    assert section.sentence.startswith("Winner: trial ")
    assert "better than the best baseline" in section.sentence
    assert any("with a chance of over 99 %" in point for point in section.points)
    assert any(point.startswith("Another 38 trials would find") for point in section.points)


def test_within_noise_is_said_and_drawn_grey():
    section = verdict_section(confirmed(made_up_data(40), gain=0.001))
    assert "no configuration is better than baseline" in section.sentence.lower()
    differences = section.figures[1].plot
    texts = [t.text[0] for t in differences.data if t.text]
    assert texts == ["within noise"] * 2
    colours = {t.marker.color for t in differences.data if t.text}
    assert colours == {GREY}


def test_intervals_are_those_of_the_confirmation():
    data = confirmed(made_up_data(40), gain=0.08)
    assert data.confirmation is not None
    found = data.confirmation.comparisons[0].difference.estimate
    means = [t for t in verdict_section(data).figures[1].plot.data if t.text]
    drawn = {(round(t.x[0], 6), round(t.error_x.array[0], 6)) for t in means}
    assert (round(found.mean, 6), round(found.half, 6)) in drawn
    assert {t.marker.color for t in means} == {GREEN}


def test_without_a_confirmation_it_is_called_unconfirmed_and_two_errors_are_drawn():
    data = made_up_data(40)
    section = verdict_section(data)
    assert "it is unconfirmed: one seed, and the best of several trials" in section.sentence
    best = section.figures[0].plot.data[-1]
    assert best.error_x.array[0] == pytest.approx(0.02)


def test_commands_continue_confirm_or_repeat():
    data = replace(made_up_data(40), commands=COMMANDS, resume="python -m sweeps.run x.yaml")
    commands = [command for command, _ in verdict_section(data).commands]
    assert commands == [
        "python -m sweeps.run x.yaml --trials 78",
        COMMANDS[0][0],
        COMMANDS[2][0],
    ]


def test_without_a_completed_trial_advice_is_given():
    data = made_up_data(30)
    exploded = tuple(t for t in data.trials if t.exploded)
    assert verdict_section(replace(data, trials=exploded)).sentence.startswith(
        "Every trial exploded, the first one with: step "
    )
    assert keys_of(replace(data, trials=exploded)) == []


def test_a_baseline_may_be_the_best():
    data = made_up_data(2)
    section = verdict_section(data)
    assert section.sentence.startswith("The best is baseline after")
    assert all(t.record.state is State.COMPLETED for t in data.trials)
