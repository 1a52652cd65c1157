"""The Optuna study of a sweep: opened on disk, and read back as plain records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from sweeps.errors import SweepError
from sweeps.spec import SweepSpec
from sweeps.states import State

optuna.logging.set_verbosity(optuna.logging.WARNING)

STUDY_NAME = "sweep"
"""Each sweep has a store of its own, so one name does for all."""
CONSTRAINT = "explosion"
"""Constraint of every trial: above 0 means that it exploded."""


@dataclass(frozen=True)
class TrialRecord:
    """What is known of one trial."""

    number: int
    state: State
    parameters: dict[str, Any]
    value: float | None = None
    """Best value of the objective; None if it was never measured."""
    standard_error: float | None = None
    """Of `value`, over the episodes of the evaluation."""
    best_epoch: int | None = None
    """Epoch at which `value` was measured."""
    baseline: str | None = None
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the last evaluation."""

    @property
    def label(self) -> str:
        """Number, and the baseline's name if it is one."""
        return f"{self.number} ({self.baseline})" if self.baseline else str(self.number)


def build_storage(path: Path) -> BaseStorage:
    """The store in `path`. Every change is appended, so that it survives a killed process."""
    return JournalStorage(JournalFileBackend(str(path)))


def create_study(path: Path, spec: SweepSpec, sampler: BaseSampler) -> optuna.Study:
    """A new study with the baselines waiting to be tried first."""
    study = optuna.create_study(
        storage=build_storage(path),
        sampler=sampler,
        study_name=STUDY_NAME,
        direction="maximize" if spec.objective.mode == "max" else "minimize",
    )
    for name, parameters in spec.baseline_parameters().items():
        study.enqueue_trial(parameters, user_attrs={"baseline": name})
    return study


def read_trials(path: Path) -> list[TrialRecord]:
    """All trials in the store, by number.

    Raises:
        SweepError: there is no study in `path`.
    """
    if not path.is_file():
        raise SweepError(f"{path}: no study there; the sweep ended before its first trial")
    study = optuna.load_study(study_name=STUDY_NAME, storage=build_storage(path))
    return to_records(study.get_trials(deepcopy=False))


def to_records(trials: Iterable[FrozenTrial]) -> list[TrialRecord]:
    """Optuna's trials as records; those that never began are left out."""
    waiting = optuna.trial.TrialState.WAITING
    return [_to_record(trial) for trial in trials if trial.state != waiting]


def _to_record(trial: FrozenTrial) -> TrialRecord:
    attrs = trial.user_attrs
    return TrialRecord(
        number=trial.number,
        state=State(attrs.get("state", State.RUNNING)),
        parameters=dict(trial.params),
        value=attrs.get("best"),
        standard_error=attrs.get("standard_error"),
        best_epoch=attrs.get("best_epoch"),
        baseline=attrs.get("baseline"),
        reason=attrs.get("reason", ""),
        metrics=attrs.get("metrics", {}),
    )


def best_of(trials: Sequence[TrialRecord], mode: str) -> TrialRecord | None:
    """The completed trial with the best value, the earlier of equals; None if none completed."""
    done = [t for t in trials if t.state is State.COMPLETED and t.value is not None]
    sign = 1 if mode == "max" else -1
    return max(done, key=lambda t: (sign * (t.value or 0.0), -t.number), default=None)


def noise_of_difference(a: TrialRecord, b: TrialRecord) -> float | None:
    """Two standard errors of the difference of two values; None where a standard error is unknown.

    The evaluation episodes are the same for all trials, so that this is an upper bound.
    """
    if a.standard_error is None or b.standard_error is None:
        return None
    return 2 * math.hypot(a.standard_error, b.standard_error)
