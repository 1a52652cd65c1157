"""What a report needs of the steps of a trial, read from `steps.jsonl` in one pass."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fsdet.health.rules import ALWAYS
from fsdet.run_files import iterate_steps

NORM, CLIPPED, DFL = "grad/norm", "grad/clipped", "train/loss/dfl"
RMS, NORM_SPIKES, LOSS_SPIKES = "grad/rms", "grad/spike_score", "train/spike_score"
SINGLE = (CLIPPED, DFL, RMS, NORM_SPIKES, LOSS_SPIKES)
LOSS_SHARE, GRADIENT_SHARE, UPDATE = "train/share/", "grad/share/", "update_ratio/"
LAST = 0.2
"""Fraction of the last values that count as the end of a run."""

Array = np.ndarray


@dataclass(frozen=True)
class RunSeries:
    """The steps of one trial."""

    steps: Array
    """(steps,) number of each optimiser step, from 1."""
    norms: Array
    """(steps,) gradient norm before clipping; NaN where it is not finite."""
    nonfinite: int = 0
    """Steps whose norm was not finite."""
    clipped: float | None = None
    """Fraction of clipped steps; None if it was not measured."""
    norm_spikes: float | None = None
    """Share of steps with a spike of the norm; None if it was not measured."""
    loss_spikes: float | None = None
    """Share of steps with a spike of the loss; None if it was not measured."""
    peak_rms: float | None = None
    """Largest root mean square of g²/v of any tensor; None without AdamW."""
    dfl: float | None = None
    """DFL loss at the end, before its weight."""
    loss_shares: Mapping[str, float] = field(default_factory=dict)
    """Term -> share of the loss at the end."""
    gradient_shares: Mapping[str, float] = field(default_factory=dict)
    """Term -> share of the gradient when it was last measured."""
    update_ratios: Mapping[str, float] = field(default_factory=dict)
    """Module -> norm of an update over the norm of the weights, at the end."""

    @property
    def peak(self) -> float | None:
        """The largest finite norm."""
        found = self.norms[np.isfinite(self.norms)]
        return float(found.max()) if len(found) else None

    @property
    def last_norm(self) -> float | None:
        """Median norm at the end."""
        return end_of(self.norms)

    @property
    def regime(self) -> str | None:
        """How often steps were clipped: never, sometimes or always; None if it was not measured."""
        if self.clipped is None:
            return None
        return "never" if self.clipped == 0 else "always" if self.clipped >= ALWAYS else "sometimes"


def read_series(run_dir: Path) -> RunSeries | None:
    """The steps of the run in `run_dir`; None if there are none."""
    return to_series(iterate_steps(run_dir))


def to_series(rows: Iterable[Mapping[str, float]]) -> RunSeries | None:
    """The series from the lines of `steps.jsonl`; None without any."""
    columns: dict[str, array[float]] = defaultdict(lambda: array("d"))
    for row in rows:
        columns["step"].append(row["step"])
        columns[NORM].append(row.get(NORM, math.nan))
        for key, value in row.items():
            if key in SINGLE or key.startswith((LOSS_SHARE, GRADIENT_SHARE, UPDATE)):
                columns[key].append(value)
    if not columns:
        return None
    steps, norms = np.array(columns["step"]), np.array(columns[NORM])
    finite = np.isfinite(norms)
    clipped = np.array(columns[CLIPPED]) if CLIPPED in columns else None
    return RunSeries(
        steps=steps,
        norms=np.where(finite, norms, math.nan),
        nonfinite=int((~finite).sum()),
        clipped=None if clipped is None else float(np.nanmean(clipped)),
        norm_spikes=_last(columns, NORM_SPIKES),
        loss_spikes=_last(columns, LOSS_SPIKES),
        peak_rms=_largest(columns, RMS),
        dfl=end_of(np.array(columns[DFL])) if DFL in columns else None,
        loss_shares=dict(_named(columns, LOSS_SHARE)),
        gradient_shares=dict(_named(columns, GRADIENT_SHARE)),
        update_ratios=dict(_named(columns, UPDATE)),
    )


def _named(columns: Mapping[str, array[float]], prefix: str) -> Iterator[tuple[str, float]]:
    """Name behind `prefix` -> value at the end."""
    for key, values in columns.items():
        if key.startswith(prefix) and (value := end_of(np.array(values))) is not None:
            yield key.removeprefix(prefix), value


def _last(columns: Mapping[str, array[float]], key: str) -> float | None:
    """The value of the last step, which stands for all before it."""
    return columns[key][-1] if key in columns else None


def _largest(columns: Mapping[str, array[float]], key: str) -> float | None:
    found = np.array(columns[key]) if key in columns else np.empty(0)
    found = found[np.isfinite(found)]
    return float(found.max()) if len(found) else None


def end_of(values: Array) -> float | None:
    """Median of the finite values in the last fifth, at least of one; None if there are none."""
    found = values[np.isfinite(values)]
    return float(np.median(found[-max(1, int(LAST * len(found))) :])) if len(found) else None


def thin(steps: Array, values: Array, points: int) -> tuple[Array, Array]:
    """At most `points` of a series, with the smallest and the largest value of every stretch of it.

    No spike is lost, however short it is. NaN is left out.

    Args:
        steps: (steps,) ascending.
        values: (steps,).
        points: at least 4.
    """
    keep = np.flatnonzero(np.isfinite(values))
    if len(keep) > points:
        stretches = np.array_split(keep, max(1, (points - 2) // 2))
        extremes = {keep[0], keep[-1]}
        for stretch in stretches:
            extremes |= {
                stretch[np.argmin(values[stretch])],
                stretch[np.argmax(values[stretch])],
            }
        keep = np.array(sorted(extremes))
    return steps[keep], values[keep]
