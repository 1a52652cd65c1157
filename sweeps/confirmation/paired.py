"""What a few seeds can say: intervals, differences paired by seed, Holm's correction.

Runs at the same seed share their episodes and the order of their scenes, so that their difference
varies less than either of them. Nothing here knows of sweeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.special import stdtr  # type: ignore[import-untyped]

from fsdet.engine.intervals import half_width, standard_error

Verdict = Literal["better", "worse", "within noise"]

ALPHA = 0.05
"""Chance that anything in a family of comparisons is called better though nothing is."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval by Student's t."""

    mean: float
    half: float
    """Half the width of the interval; NaN for a single value."""
    count: int
    """Number of values."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and interval of at least one value."""
    return Estimate(sum(values) / len(values), half_width(values), len(values))


@dataclass(frozen=True)
class Difference:
    """Mean difference of two configurations over the seeds that both were measured at."""

    estimate: Estimate
    p: float
    """Two-sided p-value of the paired t-test, of this comparison alone: below 0.05 where the interval
    leaves out 0."""


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """`a - b` by seed; None with fewer than two seeds in common.

    Args:
        a: seed -> value.
        b: seed -> value.
    """
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    if len(differences) < 2:
        return None
    found, error = estimate(differences), standard_error(differences)
    if error == 0:  # the seeds change nothing: any difference is exact
        return Difference(found, 1.0 if found.mean == 0 else 0.0)
    p = 2 * float(stdtr(found.count - 1, -abs(found.mean) / error))
    return Difference(found, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those below alpha errs at all with probability alpha at most.

    Reference: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def adjust(p_values: Sequence[float]) -> list[float]:
    """Two-sided p-values, corrected for a family of which one member will be picked as better.

    Being better is one half of two sides, so that Holm's correction is made of the halves; but no
    verdict goes against its own interval.
    """
    return [max(pair) for pair in zip(p_values, holm([p / 2 for p in p_values]), strict=True)]


def verdict(difference: Difference, adjusted: float, mode: Literal["max", "min"]) -> Verdict:
    """The first of a pair against the second, in a word.

    Args:
        difference: first minus second.
        adjusted: its p-value after correction.
        mode: whether more is better.
    """
    mean = difference.estimate.mean
    if not adjusted < ALPHA or math.isnan(mean):
        return "within noise"
    return "better" if (mean > 0) == (mode == "max") else "worse"
