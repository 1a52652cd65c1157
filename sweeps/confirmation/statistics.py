"""Statistics over a few seeds: intervals, differences paired by seed, Holm's correction, power.

Runs at the same seed share their episodes and the order of their scenes, so that their difference
varies less than either of them. Independent of the rest of `sweeps`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy.special import nctdtr, stdtr, stdtrit  # type: ignore[import-untyped]

from fsdet.evaluation.intervals import half_width, standard_error

Verdict = Literal["better", "worse", "within noise"]

ALPHA = 0.05
"""Probability that any member of a family of comparisons is called better though none is."""
LEAST_SEEDS = 3
"""Seeds that two configurations must have in common to be compared. The spread of two differences is no
estimate of noise: they are nearly equal by chance too often."""
ROUNDING = 1e-9
"""Differences that vary by less than this fraction of the values are equal up to rounding."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval by Student's t."""

    mean: float
    half: float
    """Half the width of the interval; NaN if the values have no spread to estimate it from."""
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
    """Two-sided p-value of this comparison alone. By the paired t-test it is below 0.05 where the
    interval leaves out 0; equal differences have no interval and the p-value of the sign test."""


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """`a - b` by seed; None with fewer than `LEAST_SEEDS` seeds in common.

    Without any spread the t-test would call every difference certain. Equal differences only show that their
    signs agree, for which the exact sign test gives p = 2 / 2^seeds.

    Args:
        a: seed -> value.
        b: seed -> value.
    """
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < LEAST_SEEDS:
        return None
    differences = [a[seed] - b[seed] for seed in seeds]
    found = estimate(differences)
    rounding = ROUNDING * max(abs(x[seed]) for x in (a, b) for seed in seeds)
    if max(differences) - min(differences) <= rounding:
        p = 1.0 if abs(found.mean) <= rounding else 2.0 ** (1 - len(seeds))
        return Difference(replace(found, half=math.nan), p)
    p = 2 * float(stdtr(found.count - 1, -abs(found.mean) / standard_error(differences)))
    return Difference(found, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those below alpha has a family-wise error rate of at most alpha.

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

    Only one of the two sides means better, so Holm's correction is applied to half the p-values; but no
    adjusted value is below its own p-value, so that no verdict contradicts its interval.
    """
    return [max(pair) for pair in zip(p_values, holm([p / 2 for p in p_values]), strict=True)]


def power(gain: float, seeds: int, comparisons: int = 1, shared: float = 0.0) -> float:
    """Smallest probability that a configuration that is better by `gain` is called better.

    It is that of the first of Holm's steps; the later steps, after other rejections, are less strict.

    Args:
        gain: true difference, in standard deviations of one configuration over seeds.
        seeds: that both configurations were measured at.
        comparisons: in the family.
        shared: fraction of the variance over seeds that both have in common, less than 1.
    """
    level = min(ALPHA / 2, ALPHA / comparisons)
    spread = math.sqrt(2 * (1 - shared))
    limit = stdtrit(seeds - 1, 1 - level)
    return 1 - float(nctdtr(seeds - 1, gain / spread * math.sqrt(seeds), limit))


def chance_better(difference: Difference, mode: Literal["max", "min"]) -> float:
    """Probability that the first of a pair is truly better, before anything is known of either.

    Half the two-sided p-value is that of the other sign; this comparison alone, not corrected for others.
    """
    better = (difference.estimate.mean > 0) == (mode == "max")
    return 1 - difference.p / 2 if better else difference.p / 2


def smallest_gain(seeds: int, comparisons: int, shared: float, wanted: float = 0.8) -> float:
    """Smallest true gain that is found in a fraction `wanted` of cases, in standard deviations; see `power`."""
    low, high = 0.0, 1000.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        found = power(middle, seeds, comparisons, shared) >= wanted
        low, high = (low, middle) if found else (middle, high)
    return high


def verdict(difference: Difference, adjusted: float, mode: Literal["max", "min"]) -> Verdict:
    """Whether the first of a pair is better than the second.

    Args:
        difference: first minus second.
        adjusted: its p-value after correction.
        mode: whether more is better.
    """
    mean = difference.estimate.mean
    if not adjusted < ALPHA or math.isnan(mean):
        return "within noise"
    return "better" if (mean > 0) == (mode == "max") else "worse"
