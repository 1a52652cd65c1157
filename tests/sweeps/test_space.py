"""YAML ranges as Optuna distributions."""

from __future__ import annotations

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.space import Parameter, contains, describe, to_distribution


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
def test_distribution_follows_the_type_of_the_setting(
    key: str, parameter: Parameter, expected: object
) -> None:
    assert to_distribution(key, parameter) == expected


def test_range_holds_its_ends_and_nothing_beyond() -> None:
    distribution = to_distribution("lr", Parameter(low=0.1, high=1))
    assert contains(distribution, 0.1)
    assert contains(distribution, 1)
    assert not contains(distribution, 1.01)
    assert not contains(distribution, "0.5")


def test_description_says_scale_and_ends() -> None:
    assert describe(Parameter(low=0.1, high=100, log=True)) == "0.1 to 100, log"
    assert describe(Parameter(choices=(1, "a"))) == "one of 1, a"


def test_written_parameter_can_be_read_again() -> None:
    for parameter in (Parameter(low=1, high=2), Parameter(choices=(1, 2))):
        assert Parameter(**parameter.model_dump(mode="json")) == parameter
