"""YAML ranges as Optuna distributions."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.config.distribution import (
    boundary_values_of,
    contains,
    describe,
    grid_of,
    to_distribution,
)
from sweeps.config.parameter import Parameter


@pytest.mark.parametrize(
    ("key", "parameter", "expected"),
    [
        ("lr", Parameter(low=1e-4, high=1, log=True), FloatDistribution(1e-4, 1, log=True)),
        ("lr", Parameter(low=0, high=1, step=0.25), FloatDistribution(0, 1, step=0.25)),
        ("n_way", Parameter(low=2, high=8), IntDistribution(2, 8)),
        ("n_way", Parameter(low=2, high=8, step=2), IntDistribution(2, 8, step=2)),
        ("n_way", Parameter(low=2, high=8, log=True), IntDistribution(2, 8, log=True)),
        ("threads", Parameter(low=1, high=2), IntDistribution(1, 2)),
        ("bbox_loss", Parameter(choices=("ciou",)), CategoricalDistribution(["ciou"])),
        ("debug", Parameter(choices=(True, False)), CategoricalDistribution([True, False])),
        ("lr", Parameter(choices=("1e-3", 0.1)), CategoricalDistribution([0.001, 0.1])),
    ],
)
def test_distribution_follows_the_type_of_the_setting(key, parameter, expected):
    assert to_distribution(key, parameter) == expected


def test_range_holds_its_ends_and_nothing_beyond():
    distribution = to_distribution("lr", Parameter(low=0.1, high=1))
    assert contains(distribution, 0.1)
    assert contains(distribution, 1)
    assert not contains(distribution, 1.01)
    assert not contains(distribution, "0.5")


def test_description_says_scale_and_ends():
    assert describe(Parameter(low=0.1, high=100, log=True)) == "0.1 to 100, log"
    assert describe(Parameter(choices=(1, "a"))) == "one of 1, a"


def test_written_parameter_can_be_read_again():
    for parameter in (Parameter(low=1, high=2), Parameter(choices=(1, 2))):
        assert Parameter(**parameter.model_dump(mode="json")) == parameter


@pytest.mark.parametrize(
    ("key", "parameter", "values", "probes"),
    [
        ("lr", Parameter(low=0.1, high=0.4, step=0.1), [0.1, 0.2, 0.3, 0.4], [0.1, 0.4]),
        ("embed_dim", Parameter(low=16, high=64, step=16), [16, 32, 48, 64], [16, 32, 64]),
        ("epochs", Parameter(low=2, high=3), [2, 3], [2, 3]),
        ("debug", Parameter(choices=(True, False)), [True, False], [True, False]),
        ("lr", Parameter(low=0.1, high=1), None, [0.1, 1]),
    ],
)
def test_grid_holds_every_value_and_probes_those_that_may_be_illegal(
    key, parameter, values, probes
):
    distribution = to_distribution(key, parameter)
    assert grid_of(distribution) == values
    assert boundary_values_of(distribution) == probes
    assert all(contains(distribution, value) for value in values or probes)


def test_value_between_two_steps_is_not_held():
    distribution = to_distribution("lr", Parameter(low=0.1, high=0.4, step=0.1))
    assert not contains(distribution, 0.25)


def test_description_says_conditions_and_ties():
    when = {"gradient_clip_mode": ("norm", "agc"), "debug": True}
    assert describe(Parameter(low=1, high=2, when=when)) == (
        "1 to 2, when gradient_clip_mode is norm or agc and debug is True"
    )
    assert describe(Parameter(tie="fusion_lr_mult", times=0.5)) == "0.5 times fusion_lr_mult"
    assert describe(Parameter(tie="fusion_lr_mult")) == "fusion_lr_mult"
