"""A searched parameter: what the YAML says of it, and the Optuna distribution that it becomes.

Whether a range is of whole or real numbers is not said in the YAML: the type of the trainer's
setting decides.
"""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fsdet.config import TrainConfig

Value: TypeAlias = bool | int | float | str | None
Kind: TypeAlias = Literal["float", "int", "choice"]


class Part(BaseModel):
    """Base of all parts of a sweep's description: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Parameter(Part):
    """Either a range (`low`, `high`, `log`, `step`) or a list of `choices`."""

    low: float | None = None
    """Lower end, included."""
    high: float | None = None
    """Upper end, included."""
    log: bool = False
    """Search the logarithm; for values that span orders of magnitude."""
    step: float | None = Field(default=None, gt=0)
    """Distance between neighbouring values; None for any real number, 1 for whole ones."""
    choices: tuple[Value, ...] | None = None
    """Values without an order."""

    @model_validator(mode="after")
    def _check(self) -> Parameter:
        if self.choices is not None:
            _check_choices(self)
        else:
            _check_range(self)
        return self

    @property
    def ends(self) -> tuple[Value, ...]:
        """Both ends of a range, or every choice: the values that must be legal for all to be."""
        return self.choices if self.choices is not None else (self.low, self.high)


def _check_choices(parameter: Parameter) -> None:
    if parameter.log or any(v is not None for v in (parameter.low, parameter.high, parameter.step)):
        raise ValueError("give either choices or a range (low, high), not both")
    choices = parameter.choices or ()
    if not choices:
        raise ValueError("choices must not be empty; list at least one value")
    if len({(type(c), c) for c in choices}) < len(choices):
        raise ValueError(f"choices must differ, but got {list(choices)}; remove the doubles")


def _check_range(parameter: Parameter) -> None:
    low, high = parameter.low, parameter.high
    if low is None or high is None:
        raise ValueError("needs low and high, as in {low: 0.1, high: 10}, or choices: [...]")
    if not low < high:
        raise ValueError(f"low < high must hold, but got low {low:g}, high {high:g}; swap them")
    if parameter.log and low <= 0:
        raise ValueError(f"log: true needs low > 0, but got low {low:g}; raise low or drop log")
    if parameter.log and parameter.step is not None:
        raise ValueError("log and step exclude each other; drop one of them")
    if parameter.step is not None and parameter.step > high - low:
        raise ValueError(
            f"step must not exceed high - low = {high - low:g}, but got {parameter.step:g}; "
            "lower it"
        )


def kind_of(key: str) -> Kind:
    """Whether the trainer's setting `key` is a real number, a whole one, or neither."""
    annotation = TrainConfig.model_fields[key].annotation
    types = {t for t in (get_args(annotation) or (annotation,)) if t is not NoneType}
    if types == {float}:
        return "float"
    return "int" if types == {int} else "choice"


def read_value(key: str, value: Any) -> Any:
    """`value` as the trainer reads it (`1e-3` is text to YAML); unchanged if it cannot."""
    annotation: Any = TrainConfig.model_fields[key].annotation
    try:
        read = TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return value
    return str(read) if isinstance(read, Path) else read


def to_distribution(key: str, parameter: Parameter) -> BaseDistribution:
    """The Optuna distribution of one parameter.

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


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether `value` can be suggested."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low <= value <= distribution.high


def describe(parameter: Parameter) -> str:
    """One parameter in words, for tables."""
    if parameter.choices is not None:
        return "one of " + ", ".join(str(choice) for choice in parameter.choices)
    scale = ", log" if parameter.log else ""
    step = f", step {parameter.step:g}" if parameter.step is not None else ""
    return f"{parameter.low:g} to {parameter.high:g}{scale}{step}"
