"""The study as a sampler sees it: with the trials that are paused, at the highest rung that they reached.

| trial      | TPE, CMA-ES, random, QMC, grid | GP                                   |
|------------|--------------------------------|--------------------------------------|
| paused     | PRUNED                         | COMPLETE, value at the highest rung  |
| pruned     | PRUNED                         | COMPLETE, value at the highest rung  |
| all others | as they are told, see `sweeps.search.searcher`                        |

In the study itself a paused trial is RUNNING: Optuna does not reopen a trial that has ended. A sampler would take
it for one without a result. TPE ranks PRUNED trials behind complete ones, those of higher rungs first, and within
a rung by value. GP sees complete trials only.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.states import State
from sweeps.study.internals import storage_of, with_constraint
from sweeps.study.study import CONSTRAINT


def sampler_view(study: optuna.Study, sampler: str) -> optuna.Study:
    """A second handle of `study`, for asking: its sampler sees paused trials; everything is written to `study`.

    Args:
        study: with its sampler.
        sampler: name of the sampler.
    """
    storage = cast("BaseStorage", _View(storage_of(study), complete=sampler == "gp"))
    return optuna.load_study(study_name=study.study_name, storage=storage, sampler=study.sampler)


class _View:
    """An Optuna storage that forwards everything; only lists of trials are changed."""

    def __init__(self, storage: BaseStorage, complete: bool) -> None:
        self._storage = storage
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
        trials = self._storage.get_all_trials(study_id, deepcopy=deepcopy)
        seen = [as_seen(trial, self._complete) for trial in trials]
        return [trial for trial in seen if states is None or trial.state in states]


def as_seen(trial: FrozenTrial, complete: bool) -> FrozenTrial:
    """One trial as a sampler sees it; `complete`: it sees no PRUNED ones."""
    paused = trial.state == TrialState.RUNNING and trial.user_attrs.get("state") == State.PAUSED
    pruned = trial.state == TrialState.PRUNED and trial.user_attrs.get("state") == State.PRUNED
    if not trial.intermediate_values or not (paused or (pruned and complete)):
        return trial
    seen = copy.copy(trial)
    seen.state = TrialState.PRUNED
    if complete:
        seen.state = TrialState.COMPLETE
        seen.value = trial.intermediate_values[max(trial.intermediate_values)]
    return with_constraint(seen, CONSTRAINT, 0.0) if paused else seen
