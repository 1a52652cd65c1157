"""The probability to explode over settings, estimated from the trials nearby.

The estimate at a point is the share of exploded trials, each weighted by its distance (a Gaussian kernel on the scales
of the search space), with the overall share as one more trial: far from all trials it is that share. The two settings
of a map are those whose estimate predicts best whether a trial explodes that was left out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

BANDWIDTHS = (0.06, 0.1, 0.16, 0.25)
"""Standard deviations of the kernel that are tried, as fractions of a range."""
PRIOR = 1.0
"""Weight of the overall share, in trials."""
FIRST = 10
"""Settings, best alone, of which pairs are tried."""
LARGEST = 400
"""Trials from which the settings are chosen, at most."""
SHUFFLES = 19
"""Shuffles of the outcomes: the best map of each would have to gain less for one sweep in twenty to be fooled."""

Array = np.ndarray


@dataclass(frozen=True)
class RiskMap:
    """The settings of a map, as columns, and its kernel."""

    columns: tuple[int, ...]
    """One or two."""
    bandwidth: float
    predicts: bool
    """Whether it gains more than the best map of any shuffle (log-likelihood of trials that were left out, above that
    of the overall share)."""


def weights(at: Array, positions: Array, bandwidth: float) -> Array:
    """(m, n) weights of trials at `positions` (n, d) for points `at` (m, d); 0 where a setting does not apply."""
    squared = np.zeros((len(at), len(positions)))
    for column in range(positions.shape[1]):
        squared += (at[:, None, column] - positions[None, :, column]) ** 2
    return np.nan_to_num(np.exp(-squared / (2 * bandwidth**2)))


def probability(
    at: Array, positions: Array, exploded: Array, bandwidth: float
) -> tuple[Array, Array]:
    """Probability to explode at points, and the weight of the trials near each.

    Args:
        at: (m, d) points, between 0 and 1.
        positions: (n, d) of the trials.
        exploded: (n,) whether each exploded.
        bandwidth: of the kernel.
    """
    near = weights(at, positions, bandwidth)
    total = near.sum(axis=1)
    return (near @ exploded + PRIOR * exploded.mean()) / (total + PRIOR), total


def left_out(positions: Array, outcomes: Array, bandwidth: float) -> Array:
    """(m,) log-likelihood of each trial under the estimate from all others, above that of the overall share, summed.

    Args:
        positions: (n, d) of the trials.
        outcomes: (n, m) 1 or 0, each column for itself.
        bandwidth: of the kernel.
    """
    near = weights(positions, positions, bandwidth)
    np.fill_diagonal(near, 0.0)
    share = (outcomes.sum(axis=0) - outcomes + 0.5) / len(outcomes)  # of the others, off 0 and 1
    p = (near @ outcomes + PRIOR * share) / (near.sum(axis=1, keepdims=True) + PRIOR)
    gains = [np.log(np.where(outcomes > 0, q, 1 - q)).sum(axis=0) for q in (p, share)]
    return np.asarray(gains[0] - gains[1])


def find_map(positions: Array, exploded: Array) -> RiskMap:
    """The one or two settings, of at least one, that predict explosions best.

    Args:
        positions: (n, k) of trials on the scales of all settings; NaN where one does not apply.
        exploded: (n,) 1 or 0.
    """
    some = np.unique(np.linspace(0, len(exploded) - 1, min(LARGEST, len(exploded))).astype(int))
    positions, chance = positions[some], np.random.default_rng(0)
    real = exploded[some].astype(float)
    outcomes = np.stack([real, *(chance.permutation(real) for _ in range(SHUFFLES))], axis=1)

    def gains(columns: tuple[int, ...]) -> Array:
        """(bandwidths, 1 + shuffles)."""
        return np.stack([left_out(positions[:, columns], outcomes, h) for h in BANDWIDTHS])

    alone: dict[tuple[int, ...], Array] = {
        (column,): gains((column,)) for column in range(positions.shape[1])
    }
    found = alone
    if len(alone) > 1:
        first = sorted(alone, key=lambda one: -alone[one][:, 0].max())[:FIRST]
        pairs = combinations(sorted(one[0] for one in first), 2)
        found = {pair: gains(pair) for pair in pairs}
    best = max(found, key=lambda one: found[one][:, 0].max())
    by_chance = max(float(one[:, 1:].max()) for one in found.values())
    place = int(np.argmax(found[best][:, 0]))
    return RiskMap(best, BANDWIDTHS[place], float(found[best][place, 0]) > by_chance)


@dataclass(frozen=True)
class Split:
    """One threshold on one setting that separates exploded trials best."""

    column: int
    threshold: float
    """Position on the scale."""
    below: tuple[int, int]
    """Exploded, and all, at or below the threshold."""
    above: tuple[int, int]


def find_split(positions: Array, exploded: Array, columns: Sequence[int]) -> Split | None:
    """The threshold with the most information about exploding; None if no setting varies."""
    found: list[tuple[float, Split]] = []
    for column in columns:
        known = np.isfinite(positions[:, column])
        values, outcomes = positions[known, column], exploded[known].astype(int)
        order = np.argsort(values, kind="stable")
        values, outcomes = values[order], outcomes[order]
        for cut in np.flatnonzero(np.diff(values) > 0) + 1:
            below, above = outcomes[:cut], outcomes[cut:]
            parts = [(int(part.sum()), len(part)) for part in (below, above)]
            threshold = float((values[cut - 1] + values[cut]) / 2)
            score = sum(_entropy(*part) for part in parts)
            found.append((score, Split(column, threshold, parts[0], parts[1])))
    return min(found, key=lambda one: one[0])[1] if found else None


def _entropy(exploded: int, count: int) -> float:
    p = np.array([exploded, count - exploded]) / count
    return float(-count * (p[p > 0] * np.log(p[p > 0])).sum())
