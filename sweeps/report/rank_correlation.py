"""Spearman's rank correlation with its p-value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr  # type: ignore[import-untyped]

LEAST = 8
"""Values below which nothing is said."""


@dataclass(frozen=True)
class RankCorrelation:
    """How far two quantities rise together."""

    rho: float
    p: float
    """Two-sided, by Student's t."""
    count: int


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> RankCorrelation | None:
    """The correlation of the pairs in which both are finite; None with too few, or if one does not vary."""
    x, y = np.array(a, float), np.array(b, float)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = average_ranks(x[both]), average_ranks(y[both])
    if len(x) < LEAST or x.std() == 0 or y.std() == 0:
        return None
    rho = float(np.corrcoef(x, y)[0, 1])
    if abs(rho) > 1 - 1e-12:
        return RankCorrelation(rho, 0.0, len(x))
    t = abs(rho) * math.sqrt((len(x) - 2) / (1 - rho**2))
    return RankCorrelation(rho, 2 * float(stdtr(len(x) - 2, -t)), len(x))


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray(((ends - counts + ends - 1) / 2)[inverse])
