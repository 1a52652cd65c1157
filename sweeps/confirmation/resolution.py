"""The smallest difference that a sweep can resolve, before it runs, and the power of its confirmation.

Without a confirmation two trials differ beyond noise by two standard errors over episodes, which the probe measures.
With one, the spread over seeds counts; it is known from an earlier confirmed sweep of the same name.
"""

from __future__ import annotations

import math
import statistics

from sweeps.config import SweepSpec
from sweeps.confirmation.results import CONFIRM_FILE, Confirmation, load_confirmation
from sweeps.confirmation.statistics import power, smallest_gain
from sweeps.errors import SweepError
from sweeps.storage.lookup import find_folder

WANTED = 0.8
"""Fraction of sweeps in which a difference must be found to count as resolved."""


def resolution_lines(spec: SweepSpec, episodes_error: float | None) -> list[str]:
    """What the search alone and its confirmation resolve.

    Args:
        spec: of the sweep.
        episodes_error: standard error of a trial's value over the episodes of its last evaluation; None if the
            probe could not measure it.
    """
    lines = []
    if episodes_error is not None:
        lines.append(
            f"one seed of each trial resolves a difference of about {2 * math.sqrt(2) * episodes_error:.3f} in "
            f"{spec.objective.metric}: two standard errors over episodes, measured on the probe's weights"
        )
    if spec.confirm is not None and spec.baselines:
        lines.append(confirmed_line(spec))
    return lines


def confirmed_line(spec: SweepSpec) -> str:
    """What the confirmation resolves, in the metric if the spread over seeds is known."""
    assert spec.confirm is not None
    comparisons = spec.confirm.top_k * len(spec.baselines)
    most, least = (
        smallest_gain(spec.confirm.seeds, comparisons, shared, WANTED) for shared in (0, 0.5)
    )
    start = (
        f"its confirmation resolves a gain of {least:.1f} to {most:.1f} standard deviations over seeds in "
        f"{100 * WANTED:.0f} % of sweeps"
    )
    known = earlier_spread(spec)
    if known is None:
        return f"{start}; how large these are is known after a first confirmed sweep"
    name, spread = known
    return f"{start}: {least * spread:.3f} to {most * spread:.3f} at the spread of {name} ({spread:.4f})"


def earlier_spread(spec: SweepSpec) -> tuple[str, float] | None:
    """Name and spread over seeds of an earlier confirmed sweep: that of `warm_start`, or the latest of this name."""
    try:
        folder = find_folder(spec.warm_start or spec.name, spec.storage.path)
    except SweepError:
        return None
    confirmation = load_confirmation(folder.path / CONFIRM_FILE)
    spread = None if confirmation is None else spread_over_seeds(confirmation)
    return None if spread is None else (folder.name, spread)


def spread_over_seeds(confirmation: Confirmation) -> float | None:
    """Standard deviation of one configuration over seeds, pooled; None with fewer than two values of each."""
    values = [list(m.values(confirmation.metric).values()) for m in confirmation.configurations]
    variances = [statistics.variance(found) for found in values if len(found) > 1]
    return math.sqrt(statistics.fmean(variances)) if variances else None


def power_line(seeds: int, comparisons: int) -> str:
    """How often a true gain is found, as a sentence."""

    def cases(gain: float) -> str:
        low, high = (100 * power(gain, seeds, comparisons, shared) for shared in (0, 0.5))
        return f"{low:.0f} to {high:.0f} %"

    several = "1 comparison" if comparisons == 1 else f"{comparisons} comparisons"
    return (
        f"power: {seeds} seeds find a gain of 2 standard deviations over seeds in {cases(2)} of cases, of 1 in "
        f"{cases(1)} ({several}; where runs at a seed share none to half of their variance)"
    )
