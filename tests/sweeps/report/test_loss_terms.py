"""The share of each loss term."""

from __future__ import annotations

from dataclasses import replace

from made_up_sweep import made_up_data

from sweeps.report.loss_terms import ROWS, shown_trials, terms_section


def test_the_best_and_the_baselines_come_first():
    data = made_up_data(60)
    shown = shown_trials(data)
    assert shown[0] is data.winner
    assert [t.record.baseline for t in shown[1:3]] == ["before", "after"]
    assert len(shown) == 3 + ROWS


def test_terms_whose_gradient_is_not_like_their_loss_are_named():
    data = made_up_data(20)
    section = terms_section(data)
    assert "dfl has 25 % of the gradient with 10 % of the loss" in section.sentence
    assert [figure.key for figure in section.figures] == ["loss_terms", "gradient_terms"]
    bars = section.figures[0].plot.data
    assert {bar.name for bar in bars} == {"bbox", "cls", "dfl"}


def test_without_gradient_shares_only_the_loss_is_drawn():
    data = made_up_data(4)
    bare = tuple(
        replace(t, series=replace(t.series, gradient_shares={})) for t in data.trials if t.series
    )
    section = terms_section(replace(data, trials=bare))
    assert [figure.key for figure in section.figures] == ["loss_terms"]
    assert section.sentence.endswith("shares of the gradient were not measured.")
