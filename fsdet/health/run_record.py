"""The input of the health report (`RunRecord`), one line of it (`Check`), and how lines are built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from fsdet.config import Band, TrainConfig
from fsdet.report import Explosion

Array = np.ndarray[Any, np.dtype[np.float64]]
Status = Literal["pass", "warn", "fail", "skip"]

MIN_WINDOW, MAX_WINDOW = 10, 200
"""Limits for the number of last steps that count as "now", a fifth of all."""
LONG_FROM_CHECKPOINT, LONG_FROM_SCRATCH = 300, 1000
"""A run with this many steps is long. On the embedded data AP and the use of the supports appear after 50 to 100
steps from a checkpoint, and after 400 to 500 from random weights."""


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    status: Status
    value: float | None
    """The measured value; None if there is none, or if it is not finite."""
    band: Band | None
    """Usual range of the value; below it is never a fault."""
    message: str


@dataclass(frozen=True)
class RunRecord:
    """What a run has recorded so far."""

    config: TrainConfig
    steps: Sequence[Mapping[str, float]]
    """What was measured at each optimiser step, in order (`steps.jsonl`); any value may be missing or not finite."""
    evaluations: Sequence[Mapping[str, float]]
    """Metrics of each evaluation with its `step`, in order (`evaluations.jsonl`)."""
    peaks: Mapping[str, float]
    """Trainable tensor -> its largest gradient norm in this stage; empty if not recorded."""
    explosion: Explosion | None
    """The explosion found by `fsdet.health.stability`, if any."""

    @cached_property
    def window(self) -> int:
        """Number of last steps that count as "now"."""
        return max(MIN_WINDOW, min(MAX_WINDOW, len(self.steps) // 5))

    @property
    def long(self) -> bool:
        """Whether the run has enough steps for its AP and its use of the supports to be judged."""
        return len(self.steps) >= self.long_from

    @property
    def long_from(self) -> int:
        """Number of steps with which this run is long."""
        return LONG_FROM_SCRATCH if self.config.resume is None else LONG_FROM_CHECKPOINT

    @property
    def scores(self) -> list[dict[str, float]]:
        """Finite metrics of every evaluation, by their names without the split (`nAP50`), and its `step`."""
        return [
            {key.rpartition("/")[2]: x for key, x in row.items() if math.isfinite(x)}
            for row in self.evaluations
        ]

    def all(self, name: str) -> Array:
        """One value per step; NaN if the step has none."""
        return np.array([step.get(name, math.nan) for step in self.steps], np.float64)

    def finite(self, name: str) -> Array:
        """The finite values of all steps."""
        values = self.all(name)
        return values[np.isfinite(values)]

    def now(self, name: str) -> float:
        """Median of the finite values of the last window; NaN if there are none."""
        return median(finite_of(self.all(name)[-self.window :]))


def finite_of(values: Array) -> Array:
    """`values` without inf and NaN."""
    return values[np.isfinite(values)]


def median(values: Array) -> float:
    """The median; NaN of no values."""
    return float(np.median(values)) if len(values) else math.nan


def build_check(
    name: str, status: Status, message: str, value: float = math.nan, band: Band | None = None
) -> Check:
    """A line; a value that is not finite becomes None, since JSON cannot represent it."""
    return Check(name, status, value if math.isfinite(value) else None, band, message)


def check_band(name: str, value: float, band: Band, above: str) -> Check:
    """A line that warns above `band` and never fails.

    Args:
        name: of the line.
        value: not finite means that nothing was measured.
        band: low and high.
        above: usual reason for a value above the band, and what to try.
    """
    if not math.isfinite(value):
        return build_check(name, "skip", "not measured", band=band)
    if value > band[1]:
        return build_check(name, "warn", f"above the band: {above}", value, band)
    place = "in the band" if value >= band[0] else "below the band, which is fine"
    return build_check(name, "pass", place, value, band)
