"""The map of explosions."""

from __future__ import annotations

from dataclasses import replace

from made_up_sweep import SPACE, made_up_data, made_up_spec

from sweeps.report.explosion_map import explosion_section, find_risk
from sweeps.report.section import Section
from sweeps.report.sweep_data import SweepData


def section_of(data: SweepData) -> Section:
    return explosion_section(data, find_risk(data))


def test_the_setting_that_explodes_is_named_with_counts():
    data = made_up_data(80)
    section = section_of(data)
    exploded = sum(t.exploded for t in data.trials)
    assert section.sentence.startswith(f"{exploded} of 80 trials exploded, at step ")
    assert "exploded with fusion lr above " in section.sentence
    risk = find_risk(data)
    assert risk is not None
    assert risk.key == "fusion_lr_mult"


def test_every_exploded_trial_is_on_it_with_reason_step_and_module():
    data = made_up_data(80)
    plot = section_of(data).figures[0].plot
    (trace,) = (t for t in plot.data if t.name == "exploded")
    assert len(trace.x) == sum(t.exploded for t in data.trials)
    assert all("norm_ratio in " in text and "step " in text for text in trace.text)
    assert section_of(data).points[0].startswith("Module in which the norm grew most: scs_fusion ")


def test_without_explosions_there_is_no_map():
    data = made_up_data(30)
    calm = replace(data, trials=tuple(t for t in data.trials if not t.exploded))
    section = section_of(calm)
    assert section.figures == ()
    assert section.sentence.endswith("exploded, so there is no map to draw.")


def test_explosions_without_a_cause_are_said_to_have_none():
    data = made_up_data(40)
    first = next(t for t in data.trials if t.exploded)
    calm = [t for t in data.trials if not t.exploded]
    odd = replace(first, record=replace(first.record, parameters=calm[5].record.parameters))
    section = section_of(replace(data, trials=(*calm, odd)))
    assert "no setting predicts them better than their overall share of" in section.sentence


def test_one_setting_gives_a_curve():
    key = "fusion_lr_mult"
    spec = made_up_spec(space={key: SPACE[key]}, baselines={})
    data = made_up_data(60)
    own = [
        replace(t, record=replace(t.record, parameters={key: t.record.parameters[key]}))
        for t in data.trials
    ]
    section = section_of(replace(data, spec=spec, trials=tuple(own)))
    assert section.figures[0].plot.data[0].mode == "lines"
    assert "fusion lr predicts them best" in section.sentence


def test_choices_are_named():
    spec = made_up_spec(
        space={
            "bbox_loss": {"choices": ["wiou_v3", "ciou"]},
            "fusion_lr_mult": SPACE["fusion_lr_mult"],
        },
        baselines={},
    )
    trials = []
    for trial in made_up_data(60).trials:
        given = {
            "bbox_loss": "ciou" if trial.exploded else "wiou_v3",
            "fusion_lr_mult": 1.0 + 0.01 * trial.number,
        }
        trials.append(replace(trial, record=replace(trial.record, parameters=given)))
    section = section_of(replace(made_up_data(2), spec=spec, trials=tuple(trials)))
    assert "exploded with bbox loss ciou, 0 of " in section.sentence
    assert section.figures[0].plot.layout.xaxis.ticktext == ("wiou_v3", "ciou")
