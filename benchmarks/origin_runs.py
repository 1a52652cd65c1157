"""The runs that `origin_claims.py` judges: those of a sweep's confirmation, as far as it came."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from origin_text import BANDS

from fsdet.run_files import iterate_steps
from sweeps.confirmation.results import CONFIRM_FOLDER
from sweeps.confirmation.statistics import Estimate, estimate, paired
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import find_folder
from sweeps.study.location import store_of
from sweeps.study.records import TrialRecord
from sweeps.study.study import read_trials

METRIC = "test/nAP50"
LAST = 0.25
"""Part of a run, at its end, whose median is compared with a band."""
READ = ("grad/norm", "grad/clipped", "grad/rms", "grad/accumulation", *(b.key for b in BANDS))


@dataclass(frozen=True)
class Run:
    """One training of a configuration at a seed."""

    record: TrialRecord
    folder: Path

    @property
    def exploded(self) -> bool:
        """Whether a rule ended it."""
        return self.record.state is State.INFEASIBLE

    @property
    def value(self) -> float:
        """AP50 on the test classes. A run that exploded finds nothing: to leave it out would favour what explodes."""
        return 0.0 if self.exploded else self.record.metrics[METRIC]

    @cached_property
    def series(self) -> dict[str, np.ndarray]:
        """Value of each step, of what this page reads; NaN where a step has none."""
        rows = list(iterate_steps(self.folder))
        return {key: np.array([row.get(key, math.nan) for row in rows]) for key in READ}

    def at_the_end(self, key: str) -> float:
        """Median over the last quarter of the steps."""
        values = self.series[key]
        return float(np.median(values[-max(1, round(LAST * len(values))) :]))

    def known(self, key: str) -> np.ndarray:
        """The finite values of the steps."""
        values = self.series[key]
        return values[np.isfinite(values)]


@dataclass(frozen=True)
class Experiment:
    """All runs of a sweep's confirmation."""

    folder: SweepFolder
    runs: dict[str, dict[int, Run]]
    """Configuration -> seed -> run."""

    def values(self, name: str) -> dict[int, float]:
        """Seed -> AP50 of a configuration."""
        return {seed: run.value for seed, run in self.runs.get(name, {}).items()}

    def exploded(self, name: str) -> int:
        """Number of runs of a configuration that exploded."""
        return sum(run.exploded for run in self.runs.get(name, {}).values())

    def all_runs(self) -> Iterator[tuple[str, Run]]:
        """Name of the configuration and run, of all."""
        for name, by_seed in self.runs.items():
            for run in by_seed.values():
                yield name, run


def load(name: str, storage: str | None) -> Experiment:
    """The runs of a sweep's confirmation, as far as it came.

    Raises:
        SweepError: there is no such sweep.
    """
    folder = find_folder(name, storage)
    runs: dict[str, dict[int, Run]] = {}
    for record in read_trials(store_of(folder).beside(CONFIRM_FOLDER)):
        preset = record.preset
        if (
            preset is not None
            and preset.baseline
            and record.state in (State.COMPLETED, State.INFEASIBLE)
        ):
            run = Run(record, folder.path / CONFIRM_FOLDER / preset.key)
            runs.setdefault(preset.baseline, {})[preset.overrides["seed"]] = run
    return Experiment(folder, runs)


class Figures(dict[str, object]):
    """What a sentence may name, for `str.format_map`: `{by_hand[clipped]:.0%}`, or a difference as `{agc-no_clip}`.

    A dot in a configuration's name is written as an underscore.
    """

    def __init__(self, experiment: Experiment) -> None:
        super().__init__()
        self._experiment = experiment
        self._names = {name.replace(".", "_"): name for name in experiment.runs}

    def __missing__(self, key: str) -> object:
        first, _, second = key.partition("-")
        if second:
            return self._difference(self._names[first], self._names[second])
        return measured(self._experiment, self._names[first])

    def _difference(self, first: str, second: str) -> str:
        found = paired(self._experiment.values(first), self._experiment.values(second))
        return "unknown" if found is None else shown(found.estimate)


def shown(found: Estimate) -> str:
    """A gain with its interval."""
    if math.isnan(found.half):
        return f"{found.mean:+.4f}"
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def measured(experiment: Experiment, name: str) -> dict[str, float]:
    """Figures of a configuration over all its runs; NaN for what no step has.

    `value` and `half`: AP50 and half its 95 % interval; `norm`: median norm; `clipped`: mean share; `touched`: share
    of steps at which anything was clipped; `rms`, `peak`: mean and maximum of the largest RMS of g²/v; `scales`: to
    how much of one the gradients of the four scales add up.
    """
    runs = list(experiment.runs[name].values())
    values = estimate([run.value for run in runs])
    clipped, rms, scales = (
        np.concatenate([run.known(f"grad/{key}") for run in runs])
        for key in ("clipped", "rms", "accumulation")
    )
    return {
        "value": values.mean,
        "half": values.half,
        "norm": float(np.median([np.median(run.known("grad/norm")) for run in runs])),
        "clipped": mean(clipped),
        "touched": mean(clipped > 0),
        "rms": mean(rms),
        "peak": float(rms.max()) if len(rms) else math.nan,
        "scales": mean(scales),
    }


def mean(values: np.ndarray) -> float:
    """NaN of nothing."""
    return float(values.mean()) if len(values) else math.nan
