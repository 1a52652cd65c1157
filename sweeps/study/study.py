"""The Optuna study of a sweep: opened in its store, and read back as plain records.

The study is the truth about a sweep: what was suggested and how it ended is written to its store
before anything else is told. A trial that was interrupted stays RUNNING in it, so that it can go
on under its own number; its user attribute `state` says what it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweeps.errors import SweepError
from sweeps.spec import SweepSpec
from sweeps.states import State
from sweeps.study.store import JournalStore, StudyStore

optuna.logging.set_verbosity(optuna.logging.WARNING)

CONSTRAINT = "explosion"
"""Constraint of every trial: above 0 means that it exploded."""
WARM_START = "warm_start"
"""Attribute of a trial that was taken over from the sweep of that name."""
RETRIED = "retried"
"""Attribute of a trial that ran out of memory and was tried again, alone: the reason; tag of its run."""
CURVE = "curve"
"""Attribute with the values by epoch where Optuna has no place for them: with two objectives."""


@dataclass(frozen=True)
class TrialRecord:
    """What is known of one trial."""

    number: int
    state: State
    parameters: dict[str, Any]
    value: float | None = None
    """The objective at the best epoch; None if it was never measured."""
    standard_error: float | None = None
    """Of `value`, over the episodes of the evaluation."""
    best_epoch: int | None = None
    """Epoch at which `value` was measured."""
    baseline: str | None = None
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics of the evaluation that `value` comes from."""
    costs: dict[str, float] = field(default_factory=dict)
    """Seconds of a step and bytes of memory."""
    seconds: float = 0.0
    """Wall time, all sessions together."""
    retried: str = ""
    """Why it was tried again, alone; empty for most."""

    @property
    def label(self) -> str:
        """Number, and the baseline's name if it is one."""
        return f"{self.number} ({self.baseline})" if self.baseline else str(self.number)


def create_study(store: StudyStore, spec: SweepSpec, sampler: BaseSampler) -> optuna.Study:
    """The study in `store`, made where it is not there, with the baselines waiting to be tried first."""
    study = optuna.create_study(
        storage=store.storage(),
        sampler=sampler,
        study_name=store.name,
        directions=["maximize" if o.mode == "max" else "minimize" for o in spec.objectives],
        load_if_exists=True,
    )
    # a driver that is killed just here leaves some out
    there = {t.user_attrs.get("baseline") for t in study.get_trials(deepcopy=False)}
    for name, parameters in spec.baseline_parameters().items():
        if name not in there:
            study.enqueue_trial(parameters, user_attrs={"baseline": name})
    return study


def load_study(store: StudyStore) -> optuna.Study:
    """The study in `store`.

    Raises:
        KeyError: it holds none.
    """
    return optuna.load_study(study_name=store.name, storage=store.storage())


def read_trials(place: StudyStore | Path) -> list[TrialRecord]:
    """All trials in the store, by number. What runs in no living process is interrupted.

    Args:
        place: a store, or the file that is one.

    Raises:
        SweepError: there is no study.
    """
    store = JournalStore(place) if isinstance(place, Path) else place
    if not store.is_there():
        raise SweepError(f"{store.place}: no study there; the sweep ended before its first trial")
    try:
        study = load_study(store)
    except KeyError:
        raise SweepError(
            f"{store.place}: the study is empty; the sweep ended before it began"
        ) from None
    return to_records(study.get_trials(deepcopy=False), alive=store.is_held())


def to_records(trials: Iterable[FrozenTrial], alive: bool = True) -> list[TrialRecord]:
    """Optuna's trials as records; those that never began or were taken over are left out.

    Args:
        trials: of one study.
        alive: whether the sweep runs; if not, none of its trials does.
    """
    own = (t for t in trials if t.state != TrialState.WAITING and WARM_START not in t.user_attrs)
    return [_to_record(trial, alive) for trial in own]


def _to_record(trial: FrozenTrial, alive: bool) -> TrialRecord:
    attrs = trial.user_attrs
    state = State(attrs.get("state", State.RUNNING))
    if state is State.RUNNING and not alive:
        state = State.INTERRUPTED
    return TrialRecord(
        number=trial.number,
        state=state,
        parameters=dict(trial.params),
        value=attrs.get("best"),
        standard_error=attrs.get("standard_error"),
        best_epoch=attrs.get("best_epoch"),
        baseline=attrs.get("baseline"),
        reason=attrs.get("reason", ""),
        metrics=attrs.get("metrics", {}),
        costs=attrs.get("costs", {}),
        seconds=attrs.get("seconds", 0.0),
        retried=attrs.get(RETRIED, ""),
    )


def curve_of(trial: FrozenTrial) -> dict[int, float]:
    """Epoch -> value of the objective, as the scheduler saw it."""
    if trial.intermediate_values:
        return dict(trial.intermediate_values)
    return {int(epoch): value for epoch, value in trial.user_attrs.get(CURVE, {}).items()}


def warm_up(study: optuna.Study, spec: SweepSpec, name: str, earlier: StudyStore) -> int:
    """Add what the sweep `name` learnt within the space of `spec`; returns the number of its trials.

    Completed and exploded trials are taken, once. They count neither as trials nor in the budget.

    Raises:
        SweepError: there is no study in `earlier`.
    """
    if not earlier.is_there():
        raise SweepError(f"{spec.source}: warm_start: {name} has no study in {earlier.place}")
    there = [t for t in study.get_trials(deepcopy=False) if WARM_START in t.user_attrs]
    if there:
        return len(there)
    source = load_study(earlier)
    learnt = (State.COMPLETED, State.INFEASIBLE)
    wide = len(spec.objectives)
    kept = [
        trial
        for trial in source.get_trials()
        if trial.user_attrs.get("state") in learnt
        and trial.state.is_finished()
        and spec.accepts(trial.params)
        and (trial.state != TrialState.COMPLETE or len(trial.values) == wide)
    ]
    distributions = spec.distributions()
    for trial in kept:
        trial.distributions = {key: distributions[key] for key in trial.params}
        trial.user_attrs = {**trial.user_attrs, WARM_START: name, "baseline": None}
        if spec.sampler.tells_complete and trial.state == TrialState.PRUNED:
            values = list(trial.intermediate_values.values())
            trial.state, trial.values = TrialState.COMPLETE, values[-1:] or [0.0]
    study.add_trials(kept)
    return len(kept)


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
