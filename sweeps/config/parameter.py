"""A searched parameter: what the YAML may say about it, and its Optuna distribution."""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeAlias, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from fsdet.config import TrainConfig
from fsdet.errors import shown

Value: TypeAlias = bool | int | float | str | None


MOST_CHOICES = 1000
"""Values of one list of choices."""
LARGEST_END = 1e100
"""Magnitude of an end of a range; samplers compute with squares of it."""
MOST_STEPS = 10**9
"""Values of a range with steps."""
LARGEST_WHOLE = 2**53
"""Greater whole numbers are not exact as floats, as which a YAML's ends are read."""


class Part(BaseModel):
    """Base of all parts of a sweep's description: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class Parameter(Part):
    """A range (`low`, `high`, `log`, `step`), a list of `choices`, or a `tie` to another one."""

    low: float | None = None
    """Lower end, included."""
    high: float | None = None
    """Upper end, included."""
    log: bool = False
    """Search the logarithm; for values that span orders of magnitude."""
    step: float | None = Field(default=None, gt=0)
    """Distance between neighbouring values; None for a continuous range, or 1 for an integer setting."""
    choices: tuple[Value, ...] | None = None
    """Unordered values; [true, false] for a switch."""
    tie: str | None = None
    """Another searched setting that this one copies; it is not searched itself."""
    times: float | None = None
    """Factor by which the value of `tie` is multiplied; None for 1."""
    when: dict[str, Value | tuple[Value, ...]] = Field(default_factory=dict)
    """Setting -> value or list of values that it must have for this parameter to apply.

    Where it does not apply, the setting has the trainer's default."""

    @field_validator("when", mode="before")
    @classmethod
    def _few_conditions(cls, when: Any) -> Any:
        for values in when.values() if isinstance(when, dict) else ():
            if isinstance(values, list | tuple) and len(values) > MOST_CHOICES:
                raise ValueError(
                    f"must list at most {MOST_CHOICES:,} values, but got {len(values):,}; shorten it"
                )
        return when

    @field_validator("choices", mode="before")
    @classmethod
    def _few_choices(cls, choices: Any) -> Any:
        if isinstance(choices, list | tuple) and len(choices) > MOST_CHOICES:
            raise ValueError(
                f"must have at most {MOST_CHOICES:,} values, but got {len(choices):,}; every trial "
                "stores them all; give a range instead"
            )
        return choices

    @field_validator("low", "high", "times")
    @classmethod
    def _countable(cls, end: float | None) -> float | None:
        if end is not None and abs(end) > LARGEST_END:
            raise ValueError(
                f"must lie between -{LARGEST_END:g} and {LARGEST_END:g}, but got {end:g}; correct it"
            )
        return end

    @model_validator(mode="after")
    def _check(self) -> Parameter:
        if self.times is not None and self.tie is None:
            raise ValueError("times needs tie, the setting to multiply; add tie or drop times")
        if self.tie is not None:
            _check_tie(self)
        elif self.choices is not None:
            _check_choices(self)
        else:
            _check_range(self)
        empty = next((key for key, values in self.conditions.items() if not values), None)
        if empty is not None:
            raise ValueError(f"when: list at least one value of {empty}")
        return self

    @property
    def conditions(self) -> dict[str, tuple[Value, ...]]:
        """`when` with a tuple for each setting."""
        return {k: v if isinstance(v, tuple) else (v,) for k, v in self.when.items()}

    @property
    def ends(self) -> tuple[Value, ...]:
        """Both ends of a range, or every choice; nothing for a tied one."""
        if self.tie is not None:
            return ()
        return self.choices if self.choices is not None else (self.low, self.high)


def _given(parameter: Parameter) -> list[str]:
    names = ("low", "high", "step", "choices")
    return [name for name in names if getattr(parameter, name) is not None] + (
        ["log"] if parameter.log else []
    )


def _check_tie(parameter: Parameter) -> None:
    if given := _given(parameter):
        raise ValueError(
            f"a tied setting has no range of its own, but got {', '.join(given)}; drop tie or them"
        )


def _check_choices(parameter: Parameter) -> None:
    if len(_given(parameter)) > 1:
        raise ValueError("give either choices or a range (low, high), not both")
    choices = parameter.choices or ()
    if not choices:
        raise ValueError("choices must not be empty; list at least one value")
    if len({(type(c), c) for c in choices}) < len(choices):
        raise ValueError(f"choices must differ, but got {shown(list(choices))}; remove the doubles")


def _check_range(parameter: Parameter) -> None:
    low, high = parameter.low, parameter.high
    if low is None or high is None:
        raise ValueError(
            "needs low and high, as in {low: 0.1, high: 10}, or choices: [...], or tie: setting"
        )
    if not low < high:
        raise ValueError(f"low < high must hold, but got low {low:g}, high {high:g}; swap them")
    if parameter.log and low <= 0:
        raise ValueError(f"log: true needs low > 0, but got low {low:g}; raise low or drop log")
    if parameter.step is not None:
        _check_step(low, high, parameter.step, parameter.log)


def _check_step(low: float, high: float, step: float, log: bool) -> None:
    if log:
        raise ValueError("log and step exclude each other; drop one of them")
    if step > high - low:
        raise ValueError(
            f"step must not exceed high - low = {high - low:g}, but got {step:g}; lower it"
        )
    first, last, by = (Decimal(str(number)) for number in (low, high, step))
    if (last - first) / by > MOST_STEPS:
        raise ValueError(
            f"step must leave at most {MOST_STEPS:g} values from {low:g} to {high:g}, but got {step:g}; "
            "raise it, or drop it for a continuous range"
        )
    if (last - first) % by:
        reached = first + (last - first) // by * by
        raise ValueError(
            f"steps of {step:g} from {low:g} do not meet high {high:g}; set high: {float(reached):g}"
        )


Kind: TypeAlias = Literal["float", "int", "choice"]


def kind_of(key: str) -> Kind:
    """Whether the trainer's setting `key` is a float, an integer, or neither."""
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
