"""What a sweep says to the settings found by hand."""

from __future__ import annotations

from dataclasses import replace

from conftest import small_spec
from made_up_sweep import confirmed, made_up_data

from sweeps.report.comparable import comparable
from sweeps.report.hand_made import hand_made_section
from sweeps.report.section import Rows
from sweeps.report.sweep_data import SweepData


def verdicts(data: SweepData) -> dict[str, tuple[str, str]]:
    """Claim -> evidence and verdict."""
    table = hand_made_section(data, comparable(data)).table
    assert isinstance(table, Rows)
    return {claim: (evidence, verdict) for claim, evidence, verdict in table.rows}


def test_a_trend_supports_and_none_is_within_noise():
    found = verdicts(made_up_data(40))
    assert found["Train the head faster (2)"][1] == "supported"
    assert found["Weigh the DFL loss 0.5, not 1.5"][1] == "within noise"


def test_baselines_are_compared_over_the_seeds_of_the_confirmation():
    data = made_up_data(40)
    claim = "All changes together: after is better than before"
    assert "on one seed" in verdicts(data)[claim][0]
    evidence, verdict = verdicts(confirmed(data, 0.05))[claim]
    assert "over 5 seeds on the test split" in evidence
    assert verdict == "within noise"


def test_a_clip_norm_that_always_clips_is_called_inert():
    data = made_up_data(40)
    always = tuple(
        replace(t, series=replace(t.series, clipped=1.0)) for t in data.trials if t.series
    )
    evidence, verdict = verdicts(replace(data, trials=always))[
        "Clip the gradient norm at 10, not at 1"
    ]
    assert verdict == "close to inert here"
    assert "0 of 40 trials were clipped at some steps" in evidence


def test_the_verdicts_are_counted_in_the_sentence():
    data = made_up_data(40)
    section = hand_made_section(data, comparable(data))
    assert section.sentence.startswith(f"Of {len(verdicts(data))} claims behind them, ")


def test_a_sweep_of_other_settings_says_so():
    data = replace(made_up_data(2), spec=small_spec(), trials=())
    assert hand_made_section(data, comparable(data)).sentence == "This sweep searches none of them."
