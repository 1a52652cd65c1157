"""A searched parameter: what the YAML may say of it."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

Value: TypeAlias = bool | int | float | str | None


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
    """Distance between neighbouring values; None for any real number, 1 for whole ones."""
    choices: tuple[Value, ...] | None = None
    """Values without an order; [true, false] for a switch."""
    tie: str | None = None
    """Another searched setting that this one follows; it is not searched itself."""
    times: float | None = None
    """What the value of `tie` is multiplied by; None for 1."""
    when: dict[str, Value | tuple[Value, ...]] = Field(default_factory=dict)
    """Setting -> value or list of values that it must have for this parameter to apply.

    Where it does not apply, the setting has the trainer's default."""

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
        raise ValueError(f"choices must differ, but got {list(choices)}; remove the doubles")


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
    if (last - first) % by:
        reached = first + (last - first) // by * by
        raise ValueError(
            f"steps of {step:g} from {low:g} do not meet high {high:g}; set high: {float(reached):g}"
        )
