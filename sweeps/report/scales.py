"""`Scale`: a searched setting as an axis, and its values between 0 and 1 on the scale that it was drawn on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.config import SweepSpec
from sweeps.report.style import plain
from sweeps.session.display import short_name

CATEGORY_GAP = 0.5
"""What is left free before the first and behind the last choice, in distances of choices."""
WIDE = 100.0
"""Ratio of the ends of a logarithmic range from which only powers of ten are ticks."""


@dataclass(frozen=True)
class Scale:
    """One searched setting."""

    key: str
    low: float
    high: float
    log: bool = False
    choices: tuple[Any, ...] = ()
    """Of a setting that is not a range; `low` and `high` are then the numbers of the first and the last."""

    @property
    def title(self) -> str:
        """For axes."""
        return short_name(self.key)

    def value(self, parameters: Mapping[str, Any]) -> float:
        """The setting as a number; NaN where it does not apply."""
        if self.key not in parameters:
            return math.nan
        given = parameters[self.key]
        return float(self.choices.index(given) if self.choices else given)

    def position(self, parameters: Mapping[str, Any]) -> float:
        """The setting between 0 and 1 on its scale; NaN where it does not apply."""
        value = self.value(parameters)
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log(x) for x in (value, low, high))
        return (value - low) / (high - low) if high > low else 0.5 + 0 * value

    def at(self, position: float) -> float:
        """The number at a position."""
        if self.log:
            return float(self.low * (self.high / self.low) ** position)
        return self.low + position * (self.high - self.low)

    def grid(self, points: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions to evaluate a map at, and the numbers there: each choice, or `points` of a range."""
        places = np.linspace(0, 1, len(self.choices) if self.choices else points)
        if len(self.choices) == 1:
            places = np.array([0.5])
        return places, np.array([self.at(place) for place in places])

    def axis(self) -> dict[str, Any]:
        """The axis in Plotly's words."""
        found: dict[str, Any] = {"title": {"text": self.title}}
        if self.choices:
            ends = [-CATEGORY_GAP, len(self.choices) - 1 + CATEGORY_GAP]
            names = [plain(choice) for choice in self.choices]
            places = list(range(len(names)))
            return {**found, "tickvals": places, "ticktext": names, "range": ends}
        ends = [self.at(-0.02), self.at(1.02)]
        if self.log:
            ticks = 1 if self.high / self.low >= WIDE else "D2"
            logs = [math.log10(end) for end in ends]
            return {**found, "type": "log", "range": logs, "dtick": ticks}
        return {**found, "range": ends}


def scales_of(spec: SweepSpec) -> list[Scale]:
    """The searched settings, in the order of the YAML."""
    found = []
    for key, distribution in spec.distributions().items():
        match distribution:
            case CategoricalDistribution(choices=choices):
                found.append(Scale(key, 0, len(choices) - 1, choices=tuple(choices)))
            case FloatDistribution() | IntDistribution():
                found.append(Scale(key, distribution.low, distribution.high, log=distribution.log))
    return found
