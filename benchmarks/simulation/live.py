"""The real trainer as a problem: a configuration is trained as far as a search asks for, and kept in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.record_table import (
    ALL,
    FEW,
    PLANS,
    STEPS,
    average_precision,
    begin,
    configurations,
)
from benchmarks.simulation.tables import EPOCHS, Array, space_ends

PLAN = PLANS["main"]


class Values:
    """Value after each epoch, measured when it is asked for; index 0 is the first epoch."""

    def __init__(self, measure: Callable[[int], float]) -> None:
        self._measure = measure

    def __getitem__(self, index: int) -> float:
        return self._measure(index + 1)


class LiveCurve:
    """One training, which goes on whenever a later epoch is asked for."""

    def __init__(self, parameters: dict[str, float]) -> None:
        self._state = begin(PLAN, parameters, PLAN.first_seed)
        self.explodes = np.inf
        self.every = Values(lambda epoch: self._value(epoch, ALL))
        self.few = Values(lambda epoch: self._value(epoch, FEW))

    def train(self, epoch: int, stops: bool) -> None:
        """Train to the end of `epoch`; an explosion ends it if it `stops`."""
        from fsdet.training.trainer import training_step

        while self._state.step < epoch * STEPS // EPOCHS:
            if stops and np.isfinite(self.explodes):
                return
            _, found = training_step(self._state)
            if found and not np.isfinite(self.explodes):
                self.explodes = found.step * EPOCHS / STEPS

    @property
    def quality(self) -> float:
        """AP50 at the end."""
        return self._value(EPOCHS, ALL)

    def _value(self, epoch: int, episodes: int) -> float:
        assert self._state.step == epoch * STEPS // EPOCHS, "values are measured in their order"
        return average_precision(self._state, PLAN.split, episodes)[1]


class Live:
    """The space of the tables, with real trainings."""

    def __init__(self) -> None:
        self.name = "real trainings"
        baselines = configurations(PLAN)[:2]
        self._keys = list(baselines[0])
        self._low, self._high = space_ends(self._keys)
        points = [np.log([b[key] for key in self._keys]) for b in baselines]
        scaled = [(point - self._low) / (self._high - self._low) for point in points]
        self.baselines: dict[str, Array] = dict(zip(("before", "after"), scaled, strict=True))
        self._curves: dict[bytes, LiveCurve] = {}

    @property
    def dimensions(self) -> int:
        """Number of settings."""
        return len(self._keys)

    def curve(self, point: Array) -> Any:
        """The training at a point; the same one if the search goes on with it."""
        key = np.round(point, 9).tobytes()
        if key not in self._curves:
            values = np.exp(self._low + point * (self._high - self._low))
            parameters = dict(zip(self._keys, map(float, values), strict=True))
            self._curves[key] = LiveCurve(parameters)
        return self._curves[key]
