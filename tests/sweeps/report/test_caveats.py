"""Warnings, and that there are none without a reason."""

from __future__ import annotations

from dataclasses import replace

from made_up_sweep import confirmed, made_up_data

from fsdet.report import NO_SWAP_CONTROL
from sweeps.report.caveats import (
    at_the_edge,
    caveats_section,
    close_swap_control,
    few_trials,
    flat_axes,
    many_lost,
    unfinished,
)
from sweeps.report.comparable import comparable
from sweeps.report.importance import Importance
from sweeps.report.rank_correlation import RankCorrelation
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.states import State


def with_best(data: SweepData, **changes: object) -> SweepData:
    """The sweep with another record of its best."""
    assert data.best is not None
    changed = replace(data.best, record=replace(data.best.record, **changes))  # type: ignore[arg-type]
    return replace(data, trials=tuple(changed if t is data.best else t for t in data.trials))


def with_states(data: SweepData, state: State, count: int) -> SweepData:
    def changed(trial: ShownTrial) -> ShownTrial:
        return replace(trial, record=replace(trial.record, state=state, reason="bang"))

    return replace(data, trials=(*map(changed, data.trials[:count]), *data.trials[count:]))


def test_a_best_at_the_edge_is_named_with_its_end():
    data = made_up_data(40)
    assert data.best is not None
    edge = with_best(data, parameters={**data.best.record.parameters, "dfl_weight": 0.101})
    (warning,) = at_the_edge(edge)
    assert warning.startswith(
        "The best has dfl weight at 0.101, next to the lower end of its range (0.1)"
    )
    inside = with_best(data, parameters=dict.fromkeys(data.best.record.parameters, 2.0))
    assert list(at_the_edge(inside)) == []


def test_flat_axes_are_those_that_nothing_depends_on():
    ranked = [Importance(key, 0.1, 0, 0.2, 0.3) for key in ("dfl_weight", "lr", "fusion_lr_mult")]
    rising = {"lr": RankCorrelation(0.6, 0.001, 40)}
    (warning,) = flat_axes(ranked, rising, "fusion_lr_mult")
    assert warning.startswith("dfl weight makes no difference to the objective beyond chance")


def test_few_trials_are_measured_by_the_settings():
    few, many = made_up_data(30), made_up_data(300)
    assert list(few_trials(few, comparable(few)))
    assert list(few_trials(many, comparable(many))) == []


def test_many_exploded_or_failed_trials_are_said():
    data = made_up_data(40)
    exploded = " ".join(many_lost(with_states(data, State.INFEASIBLE, 20)))
    assert "of the trials exploded: lower the upper ends" in exploded
    failed = " ".join(many_lost(with_states(data, State.FAILED, 8)))
    assert "8 of 40 trials failed, trial 0 with: bang." in failed


def test_a_best_that_ignores_its_supports_is_said():
    data = made_up_data(40)
    close = with_best(data, metrics={"val/swap_gap": 0.01, "val/swap_gap_se": 0.01})
    assert any("it finds objects, not the ones it is shown" in w for w in close_swap_control(close))
    assert list(close_swap_control(data)) == []
    assert data.best is not None
    one_way = with_best(data, parameters={**data.best.record.parameters, "n_way": 1}, metrics={})
    assert list(close_swap_control(one_way)) == [f"The swap control is {NO_SWAP_CONTROL}."]


def test_what_has_not_ended_and_what_is_unconfirmed_is_said():
    data = made_up_data(40)
    assert any("unconfirmed" in warning for warning in unfinished(data))
    assert list(unfinished(confirmed(data, 0.05))) == []
    running = with_states(data, State.PAUSED, 2)
    assert any(w.startswith("2 trials had not ended") for w in unfinished(running))


def test_without_any_it_is_said():
    data = made_up_data(300)
    assert data.best is not None
    inside = dict.fromkeys(data.best.record.parameters, 2.0)
    calm = confirmed(with_best(data, parameters=inside), 0.05)
    ranked = [Importance("head_lr_mult", 0.9, 0.8, 1, 0.1)]
    section = caveats_section(calm, comparable(calm), ranked, None)
    assert section.sentence == "Nothing to warn of."
    assert section.warnings == ()
