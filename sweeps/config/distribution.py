"""A searched setting as a distribution of Optuna: suggesting values, counting them, describing them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sweeps.config.parameter import LARGEST_WHOLE, Parameter, kind_of, read_value


def to_distribution(key: str, parameter: Parameter) -> BaseDistribution:
    """The Optuna distribution of one parameter that is not tied.

    Raises:
        ValueError: a range for a setting that is not a number, or fractions for an integer.
    """
    if parameter.choices is not None:
        return CategoricalDistribution([read_value(key, c) for c in parameter.choices])
    assert parameter.low is not None
    assert parameter.high is not None
    kind = kind_of(key)
    if kind == "choice":
        raise ValueError("is not a number; use choices: [...] instead of a range")
    if kind == "float":
        return FloatDistribution(
            parameter.low, parameter.high, log=parameter.log, step=parameter.step
        )
    numbers = {"low": parameter.low, "high": parameter.high, "step": parameter.step or 1.0}
    for name, number in numbers.items():
        if number != int(number):
            raise ValueError(f"is a whole number, so {name} must be one too, but got {number:g}")
        if abs(number) > LARGEST_WHOLE:
            raise ValueError(
                f"{name} must be at most 2^53 in magnitude, but got {number:g}; lower it"
            )
    low, high, step = (int(number) for number in numbers.values())
    return IntDistribution(low, high, log=parameter.log, step=step)


def suggest(trial: optuna.Trial, key: str, distribution: BaseDistribution) -> Any:
    """Let `trial` suggest a value of one parameter."""
    match distribution:
        case CategoricalDistribution():
            return trial.suggest_categorical(key, distribution.choices)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_int(key, low, high, log=log, step=step)
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return trial.suggest_float(key, low, high, log=log, step=step)
        case _:
            raise TypeError(f"{key}: {distribution} cannot be suggested")


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether `value` can be suggested."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not distribution.low <= value <= distribution.high:
        return False
    if distribution.step is None:
        return True
    steps = (value - distribution.low) / distribution.step
    return abs(steps - round(steps)) < 1e-8


def count_of(distribution: BaseDistribution) -> int | None:
    """The number of values that can be suggested; None for a continuous range."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return None
    low, high, step = (
        Decimal(str(number)) for number in (distribution.low, distribution.high, distribution.step)
    )
    return int((high - low) / step) + 1


def grid_of(distribution: BaseDistribution) -> list[Any] | None:
    """All values that can be suggested, in order; None for a continuous range.

    Count them before, see `count_of`: a range may have more than fit into memory.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None:
        return None
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    low, high, step = (
        Decimal(str(number)) for number in (distribution.low, distribution.high, distribution.step)
    )
    return [float(low + step * i) for i in range(int((high - low) / step) + 1)]


def boundary_values_of(distribution: BaseDistribution) -> list[Any]:
    """The values to check: if the trainer accepts these, it accepts all.

    Every choice, or the ends of a range; of an integer range also the second value, since the trainer may
    require multiples.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    second = (
        [distribution.low + distribution.step] if isinstance(distribution, IntDistribution) else []
    )
    return list(dict.fromkeys([distribution.low, *second, distribution.high]))


def describe(parameter: Parameter) -> str:
    """Description of a parameter, for tables."""
    when = " and ".join(
        f"{key} is {' or '.join(str(value) for value in values)}"
        for key, values in parameter.conditions.items()
    )
    return _describe_values(parameter) + (f", when {when}" if when else "")


def _describe_values(parameter: Parameter) -> str:
    if parameter.tie is not None:
        factor = "" if parameter.times is None else f"{parameter.times:g} times "
        return f"{factor}{parameter.tie}"
    if parameter.choices is not None:
        return "one of " + ", ".join(str(choice) for choice in parameter.choices)
    scale = ", log" if parameter.log else ""
    step = f", step {parameter.step:g}" if parameter.step is not None else ""
    return f"{parameter.low:g} to {parameter.high:g}{scale}{step}"
