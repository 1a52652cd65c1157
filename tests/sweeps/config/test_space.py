"""Conditional and tied parameters: of every legal space, every suggestion is legal."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.config import SweepSpec
from sweeps.config.check import check_spec, configs
from sweeps.config.parameter import Parameter
from sweeps.config.space import CycleError, Space
from sweeps.errors import SweepError
from sweeps.search.sampler import build_sampler

CHOICES: dict[str, list[Any]] = {
    "gradient_clip_mode": ["norm", "agc", "none"],
    "bbox_loss": ["wiou_v1", "wiou_v3", "ciou"],
    "mixed_precision": ["off", "bf16"],
    "compile": [True, False],
    "ema_decay": [None, 0.99],
}
RANGES: dict[str, dict[str, Any]] = {
    "gradient_clip_norm": {"low": 0.1, "high": 100, "log": True},
    "agc_clip_factor": {"low": 0.01, "high": 0.1, "step": 0.01},
    "gradient_accumulation": {"low": 1, "high": 9, "step": 2},
    "n_episodes": {"low": 2, "high": 64, "log": True},
    "embed_dim": {"low": 16, "high": 64, "step": 16},
    "fusion_lr_mult": {"low": 0.1, "high": 30, "log": True},
}
TIES = {"head_lr_mult": "fusion_lr_mult", "backbone_lr_mult": "fusion_lr_mult"}


@st.composite
def legal_specs(draw: st.DrawFn) -> SweepSpec:
    """Some choices, some ranges of which some are conditional, some ties."""
    chosen = draw(st.lists(st.sampled_from(sorted(CHOICES)), unique=True))
    ranged = draw(st.lists(st.sampled_from(sorted(RANGES)), unique=True, min_size=1))
    space: dict[str, dict[str, Any]] = {key: dict(RANGES[key]) for key in ranged}
    for key in chosen:
        space[key] = {"choices": CHOICES[key]}
    parents: list[str] = []
    for key in [*chosen, *ranged]:  # a condition on an earlier one: no cycles
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            some = st.lists(st.sampled_from(CHOICES[parent]), unique=True, min_size=1)
            space[key]["when"] = {parent: draw(some)}
        parents += [key] if key in chosen else []
    for key, source in TIES.items():
        if source in ranged and draw(st.booleans()):
            space[key] = {"tie": source, "times": draw(st.floats(0.1, 10))}
    order = draw(st.permutations(sorted(space)))
    return SweepSpec(name="some", space={key: space[key] for key in order})


def possible(spec: SweepSpec) -> bool:
    """Whether no two conditions exclude one another."""
    return all(all(spec.search_space.requirements(key).values()) for key in spec.space)


@settings(max_examples=60, deadline=None)
@given(legal_specs().filter(possible), st.sampled_from(["random", "tpe"]), st.integers(0, 9))
def test_every_suggestion_builds_a_config(spec, sampler, seed):
    check_spec(spec)
    chosen = spec.model_copy(update={"sampler": spec.sampler.model_copy(update={"name": sampler})})
    study = optuna.create_study(sampler=build_sampler(chosen, seed))
    for _ in range(4):
        trial = study.ask()
        parameters = spec.suggest(trial)
        config = spec.config(parameters)
        assert {key: getattr(config, key) for key in parameters} == parameters
        assert spec.config(trial.params) == config, "ties follow from what was searched"
        assert spec.accepts(trial.params)
        for key, parameter in spec.space.items():
            holds = all(
                name in parameters and parameters[name] in values
                for name, values in parameter.conditions.items()
            )
            source = parameter.tie
            assert (key in parameters) == (holds and (source is None or source in parameters))
            if key in parameters and source is not None:
                assert parameters[key] == (parameter.times or 1) * parameters[source]
                assert key not in trial.params
        study.tell(trial, config.gradient_clip_norm)


@settings(max_examples=30, deadline=None)
@given(legal_specs().filter(possible))
def test_written_sweep_can_be_read_again(spec):
    assert SweepSpec(**spec.model_dump(mode="json")) == spec


CLIP = {
    "gradient_clip_mode": Parameter(choices=("norm", "agc")),
    "gradient_clip_norm": Parameter(low=1, high=10, when={"gradient_clip_mode": "norm"}),
    "agc_clip_factor": Parameter(low=0.01, high=0.1, when={"gradient_clip_mode": ["agc"]}),
}


def spec_of(space: dict[str, Parameter], **more: Any) -> SweepSpec:
    return SweepSpec(name="some", space=space, **more)


def test_every_clip_mode_can_be_searched_with_its_own_setting():
    ranges = {
        "norm": ("gradient_clip_norm", 0.1, 100),
        "agc": ("agc_clip_factor", 0.001, 0.1),
        "update": ("update_clip_rms", 0.5, 3),
        "zclip": ("zclip_z", 1, 5),
        "adagc": ("adagc_factor", 1.01, 2),
    }
    space = {"gradient_clip_mode": Parameter(choices=tuple(ranges))}
    for mode, (key, low, high) in ranges.items():
        when = {"gradient_clip_mode": mode}
        space[key] = Parameter(low=low, high=high, log=True, when=when)
    spec = spec_of(space)
    check_spec(spec)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        found = spec.suggest(study.ask())
        assert found.keys() == {"gradient_clip_mode", ranges[found["gradient_clip_mode"]][0]}
    with pytest.raises(SweepError, match="gradient_clip_mode update needs optimizer adamw"):
        check_spec(spec_of(space, fixed={"optimizer": "sgd"}))


def test_enqueued_trial_keeps_what_applies():
    spec = spec_of(CLIP, baselines={"b": {"gradient_clip_mode": "agc", "agc_clip_factor": "2e-2"}})
    check_spec(spec)
    study = optuna.create_study()
    study.enqueue_trial(spec.baseline_parameters()["b"])
    assert spec.suggest(study.ask()) == {"gradient_clip_mode": "agc", "agc_clip_factor": 0.02}


def test_condition_on_a_fixed_setting_and_on_a_default():
    when = {"gradient_clip_mode": "norm"}  # the trainer's default
    space = {"gradient_clip_norm": Parameter(low=1, high=10, when=when)}
    assert spec_of(space).search_space.example().keys() == {"gradient_clip_norm"}
    agc = spec_of(space, fixed={"gradient_clip_mode": "agc"})
    assert agc.search_space.example() == {}


def test_parameter_waits_for_one_that_does_not_apply():
    deep = {**CLIP, "lr": Parameter(low=0.1, high=1, when={"gradient_accumulation": 2})}
    deep["gradient_accumulation"] = Parameter(low=1, high=3, when={"gradient_clip_mode": "agc"})
    space = Space(deep, {})
    assert space.order().index("gradient_accumulation") < space.order().index("lr")
    assert "lr" in space.complete(space.example({"lr": 0.5}))
    assert not space.applies("lr", {"gradient_clip_mode": "norm"})
    assert space.requirements("lr") == {"gradient_accumulation": [2], "gradient_clip_mode": ["agc"]}


def test_cycle_is_told_by_its_members():
    space = {
        "compile": Parameter(choices=(True, False), when={"debug": True}),
        "debug": Parameter(choices=(True, False), when={"compile": True}),
    }
    with pytest.raises(CycleError, match="compile needs debug needs compile"):
        Space(space, {}).order()


def test_largest_value_sees_ties_conditions_and_the_default():
    assert spec_of(CLIP, fixed={"epochs": 7}).largest("epochs") == 7
    assert spec_of(CLIP).largest("gradient_clip_norm") == 10
    epochs = Parameter(low=2, high=5, when={"gradient_clip_mode": "agc"})
    assert spec_of({**CLIP, "epochs": epochs}).largest("epochs") == 100
    tied = {"gradient_accumulation": Parameter(low=2, high=5)}
    tied["epochs"] = Parameter(tie="gradient_accumulation", times=3)
    assert spec_of(tied).largest("epochs") == 15


@pytest.mark.parametrize(
    ("parameters", "accepted"),
    [
        ({"gradient_clip_mode": "norm", "gradient_clip_norm": 2}, True),
        ({"gradient_clip_mode": "norm", "gradient_clip_norm": 20}, False),
        ({"gradient_clip_mode": "norm"}, False),
        ({"gradient_clip_mode": "agc", "gradient_clip_norm": 2}, False),
        ({"gradient_clip_mode": "none"}, False),
        ({"gradient_clip_mode": "norm", "gradient_clip_norm": 2, "lr": 1}, False),
    ],
)
def test_trials_of_another_sweep_are_accepted_where_they_fit(parameters, accepted):
    assert spec_of(CLIP).accepts(parameters) is accepted


def test_configs_hold_every_value_that_names_a_file_and_few_others():
    space = {
        "gradient_clip_mode": Parameter(choices=("norm", "agc", "none")),
        "lr": Parameter(low=0.1, high=1),
        "support_encoder": Parameter(choices=("small_conv", "other", "third")),
        "embed_dim": Parameter(low=16, high=64, step=16, when={"support_encoder": "other"}),
    }
    found = [(c.support_encoder, c.embed_dim) for c in configs(spec_of(space), list(space)[2:])]
    others = [("other", 16), ("other", 32), ("other", 64)]
    assert found == [("small_conv", 64), *others, ("third", 64)]


def test_the_best_epoch_of_a_trial_is_chosen_by_the_objective():
    assert spec_of(CLIP).config({}).best_metric == "nAP50"
    config = spec_of(CLIP, objective={"metric": "val/nAP"}).config({})
    assert (config.best_metric, config.best_mode) == ("nAP", "max")
