"""Do the bands of a team's checklist predict how well a run detects? A part of `origin_claims.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from origin_runs import Experiment
from origin_text import BANDS, LEAST_GAIN, Band
from scipy.stats import rankdata

RESAMPLES = 4000
LEVEL = 1 - 0.05 / len(BANDS)
"""Of an interval, so that those of all bands hold together in 95 % of cases (Bonferroni)."""


@dataclass(frozen=True)
class Ends:
    """What all runs ended with, one element for each run."""

    values: np.ndarray
    """AP50."""
    ends: np.ndarray
    """What the band speaks of."""
    points: np.ndarray
    """Number of the operating point."""
    groups: np.ndarray
    """Number of the configuration at that point."""


def ends_of(experiments: Sequence[Experiment], key: str) -> Ends:
    """Of the runs that have a finite value of `key`; a run that exploded may have none."""
    rows, groups = [], {}
    for point, experiment in enumerate(experiments):
        for name, run in experiment.all_runs():
            group = groups.setdefault((point, name), len(groups))
            rows.append((run.value, run.at_the_end(key), point, group))
    found = np.array(rows, dtype=float).reshape(-1, 4)
    found = found[np.isfinite(found[:, 1])]
    return Ends(found[:, 0], found[:, 1], found[:, 2].astype(int), found[:, 3].astype(int))


def centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """`values` less the mean of their group."""
    sums = np.bincount(groups, values)
    return values - (sums / np.maximum(np.bincount(groups), 1))[groups]


def inside_of(band: Band, found: Ends) -> np.ndarray:
    """Which runs end within the band."""
    return (found.ends >= band.low) & (found.ends <= band.high)


def difference(band: Band, found: Ends) -> tuple[float, float, float] | None:
    """AP50 inside less outside, of runs at the same operating point, with its interval.

    Seeds of one configuration are no independent evidence for a band, so that whole configurations are resampled.

    Returns:
        None with fewer than three configurations on a side.
    """
    inside, values = inside_of(band, found), centred(found.values, found.points)
    if min(len(set(found.groups[inside])), len(set(found.groups[~inside]))) < 3:
        return None
    chance = np.random.default_rng(0)
    by_group = [np.flatnonzero(found.groups == group) for group in np.unique(found.groups)]
    gains = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate(
            [by_group[i] for i in chance.integers(len(by_group), size=len(by_group))]
        )
        some, others = values[drawn][inside[drawn]], values[drawn][~inside[drawn]]
        if len(some) and len(others):
            gains.append(some.mean() - others.mean())
    low, high = np.quantile(gains, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(values[inside].mean() - values[~inside].mean()), float(low), float(high)


def rank_correlation(found: Ends) -> tuple[float, float]:
    """Of end and AP50 among the runs of one configuration, and its p-value by permutation within configurations."""
    order = np.argsort(found.groups, kind="stable")
    groups = found.groups[order]
    ends = centred(rankdata(centred(found.ends, found.groups)[order]), groups)
    values = centred(rankdata(centred(found.values, found.groups)[order]), groups)
    scale = np.sqrt((ends**2).sum() * (values**2).sum())
    if scale == 0:
        return 0.0, 1.0
    chance = np.random.default_rng(0)
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    parts = np.split(values, starts[1:])
    real = float((ends * values).sum() / scale)
    drawn = [
        float((ends * np.concatenate([chance.permutation(part) for part in parts])).sum() / scale)
        for _ in range(RESAMPLES)
    ]
    as_large = sum(abs(one) >= abs(real) - 1e-12 for one in drawn)
    return real, (1 + as_large) / (1 + RESAMPLES)


def verdict(gain: tuple[float, float, float] | None) -> str:
    """Does being inside predict a better run?"""
    if gain is None:
        return "cannot be judged"
    _, low, high = gain
    if low > 0:
        return "supported"
    if high < 0:
        return "refuted (worse)"
    return f"refuted (gain < {LEAST_GAIN})" if high < LEAST_GAIN else "undecided"


def band_cells(experiments: Sequence[Experiment]) -> Iterator[tuple[str, ...]]:
    """The cells of a row for each band."""
    for band in BANDS:
        found = ends_of(experiments, band.key)
        inside, gain = inside_of(band, found), difference(band, found)
        counts = [
            f"{inside[found.points == point].sum()} of {(found.points == point).sum()}"
            for point in range(len(experiments))
        ]
        correlation, p = rank_correlation(found)
        yield (
            band.name,
            f"**{verdict(gain)}**",
            "; ".join(counts),
            "—" if gain is None else "{:+.4f} [{:+.4f}, {:+.4f}]".format(*gain),
            f"{correlation:+.2f}",
            f"{p:.2g}",
        )
