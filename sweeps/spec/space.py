"""A parameter's values: the Optuna distribution that it becomes, and what it holds.

Whether a range is of whole or real numbers is not said in the YAML: the type of the trainer's
setting decides. Which parameters apply to a trial is told by `sweeps.spec.conditions`.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import TypeAdapter, ValidationError

from fsdet.config import TrainConfig
from sweeps.spec.parameter import Parameter

Kind: TypeAlias = Literal["float", "int", "choice"]


def kind_of(key: str) -> Kind:
    """Whether the trainer's setting `key` is a real number, a whole one, or neither."""
    annotation = TrainConfig.model_fields[key].annotation
    types = {t for t in (get_args(annotation) or (annotation,)) if t is not NoneType}
    if types == {float}:
        return "float"
    return "int" if types == {int} else "choice"


def read_value(key: str, value: Any) -> Any:
    """`value` as the trainer reads it (`1e-3` is text to YAML); unchanged if it cannot."""
    try:
        read = _adapter(key).validate_python(value)
    except ValidationError:
        return value
    return str(read) if isinstance(read, Path) else read


@cache
def _adapter(key: str) -> TypeAdapter[Any]:
    annotation: Any = TrainConfig.model_fields[key].annotation
    return TypeAdapter(annotation)


def to_distribution(key: str, parameter: Parameter) -> BaseDistribution:
    """The Optuna distribution of one parameter that is not tied.

    Raises:
        ValueError: a range for a setting that is not a number, or fractions for a whole one.
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


def grid_of(distribution: BaseDistribution) -> list[Any] | None:
    """All values that can be suggested, in order; None if they cannot be counted."""
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


def probes_of(distribution: BaseDistribution) -> list[Any]:
    """The values that must be legal for all to be.

    Every choice, or the ends of a range; of a range of whole numbers the second one too, since the
    trainer may want multiples.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    second = (
        [distribution.low + distribution.step] if isinstance(distribution, IntDistribution) else []
    )
    return list(dict.fromkeys([distribution.low, *second, distribution.high]))


def describe(parameter: Parameter) -> str:
    """One parameter in words, for tables."""
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
