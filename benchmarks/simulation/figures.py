"""Figures that compare search methods: compute to fixed targets, anytime regret, and compute in exploded trials.

Compute to a target is what all sweeps of a method spent, until each reached it or ended, divided by the number of those
that did: the expected compute of repeating sweeps until one succeeds. Methods that rarely reach a target pay for their
failures. A ratio of two methods is the geometric mean over problems; its interval resamples the seeds of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.simulation.clock import Run
from benchmarks.simulation.tables import ALL_PRICE, Array, Known

DRAWS = 1000
"""Bootstrap samples of an interval."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def spent(run: Run, target: float) -> tuple[float, bool]:
    """Compute until the incumbent was as good as `target`, or of the whole sweep; and whether it was."""
    for compute, quality in zip(run.compute, run.quality, strict=True):
        if quality >= target:
            return compute, True
    return run.total / (1 + ALL_PRICE), False


def to_target(runs: Sequence[Run], target: float) -> Array:
    """(runs, 2) compute, and 1 for reached."""
    return np.array([spent(run, target) for run in runs], float)


def expected(pairs: Array) -> float:
    """Compute per sweep that reached the target; half a success if none did."""
    return float(pairs[:, 0].sum() / max(pairs[:, 1].sum(), 0.5))


def ratio(mine: Sequence[Array], other: Sequence[Array]) -> Interval:
    """Geometric mean over problems of the expected compute of `mine` over that of `other`.

    Args:
        mine: of each problem, the pairs of `to_target`.
        other: the same of the other method.
    """
    chance = np.random.default_rng(0)

    def mean(draw: bool) -> float:
        logs = []
        for a, b in zip(mine, other, strict=True):
            if draw:
                a, b = (pairs[chance.integers(0, len(pairs), len(pairs))] for pairs in (a, b))
            logs.append(np.log(expected(a) / expected(b)))
        return float(np.exp(np.mean(logs)))

    drawn = [mean(draw=True) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(mean(draw=False), float(low), float(high))


def reached(pairs: Sequence[Array]) -> float:
    """Share of sweeps that reached the target, over all problems."""
    return float(np.mean([values[:, 1].mean() for values in pairs]))


def regret(runs: Sequence[Run], problem: Known, at: float) -> Array:
    """(runs,) share of random configurations better than the incumbent after compute `at`; 1 without one."""
    sample = problem.qualities()
    found = []
    for run in runs:
        done = [q for c, q in zip(run.compute, run.quality, strict=True) if c <= at]
        found.append(float((sample > done[-1]).mean()) if done else 1.0)
    return np.array(found)


def mean_interval(values: Array) -> Interval:
    """Mean of independent values."""
    error = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean, mean - float(error), mean + float(error))


def exploded(runs: Sequence[Run]) -> float:
    """Share of the compute that exploding trials took."""
    return sum(run.exploded for run in runs) / sum(run.total for run in runs)
