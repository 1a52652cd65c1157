"""The study as a sampler sees it while trials pause: every trial at the same rung.

Values of different rungs cannot be compared, and in the study itself a paused trial is RUNNING, since Optuna does
not reopen a trial that has ended. So a sampler is shown the highest rung at which enough trials have a value:

| trial                               | TPE                      | GP                        |
|-------------------------------------|--------------------------|---------------------------|
| has a value at that rung            | PRUNED with that value   | COMPLETE with that value  |
| completed before that rung          | PRUNED with its value    | COMPLETE with its value   |
| exploded                            | PRUNED, constraint > 0   | COMPLETE, constraint > 0  |
| paused or pruned before that rung   | left out                 | left out                  |
| running before that rung            | RUNNING                  | RUNNING                   |
| failed                              | FAIL                     | FAIL                      |

TPE ranks trials that are PRUNED at the same step by their values.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.states import State
from sweeps.study.internals import storage_of, with_constraint
from sweeps.study.records import curve_of
from sweeps.study.study import CONSTRAINT

ENOUGH = 20
"""Values at a rung from which a sampler learns. On recorded curves 9 served it worse, 30 no better."""


def sampler_view(study: optuna.Study, rungs: Sequence[int], complete: bool) -> optuna.Study:
    """A second handle of `study`, for asking: its sampler sees one rung; everything is written to `study`.

    Args:
        study: with its sampler.
        rungs: epochs at which trials pause, and that of complete ones, ascending.
        complete: whether the sampler sees no PRUNED trials.
    """
    if len(rungs) < 2:
        return study
    storage = cast("BaseStorage", _View(storage_of(study), rungs, complete))
    return optuna.load_study(study_name=study.study_name, storage=storage, sampler=study.sampler)


class _View:
    """An Optuna storage that forwards everything; only lists of trials are changed."""

    def __init__(self, storage: BaseStorage, rungs: Sequence[int], complete: bool) -> None:
        self._storage = storage
        self._rungs = rungs
        self._complete = complete

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: tuple[TrialState, ...] | None = None,
    ) -> list[FrozenTrial]:
        """All trials as the sampler sees them, in these states."""
        if states == (TrialState.WAITING,):  # asked for before every trial; none is seen otherwise
            return self._storage.get_all_trials(study_id, deepcopy, states)
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy)
        rung = shown_rung(trials, self._rungs)
        seen = [as_seen(trial, rung, self._complete) for trial in trials]
        return [trial for trial in seen if states is None or trial.state in states]


def shown_rung(trials: Sequence[FrozenTrial], rungs: Sequence[int]) -> int:
    """The highest rung with enough values; the first one until there are."""
    for rung in reversed(rungs[1:]):
        if sum(value_at(trial, rung) is not None for trial in trials) >= ENOUGH:
            return rung
    return rungs[0]


def value_at(trial: FrozenTrial, rung: int) -> float | None:
    """Value of a trial at a rung; of one that completed before it the value at its end."""
    value = curve_of(trial).get(rung)
    if value is None and trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    return None if value is None else float(value)


def as_seen(trial: FrozenTrial, rung: int, complete: bool) -> FrozenTrial:
    """One trial as a sampler sees it that learns from `rung`; see the table above."""
    state = trial.user_attrs.get("state", State.RUNNING)
    if state in (State.INFEASIBLE, State.FAILED):
        return trial
    value = value_at(trial, rung)
    if value is None and state not in (State.PAUSED, State.PRUNED):
        return trial
    seen = copy.copy(trial)
    if value is None:
        seen.state = TrialState.FAIL
        return seen
    seen.intermediate_values = {rung: value}
    seen.state, seen.values = (
        (TrialState.COMPLETE, [value]) if complete else (TrialState.PRUNED, None)
    )
    return seen if trial.constraints else with_constraint(seen, CONSTRAINT, 0.0)
