"""Values of trials that may be compared: all measured at the same epoch.

With rungs, most trials never reach their end, and the value of one that was paused early says little beside that of
one that ended. So figures over the search space show the latest epoch at which enough trials have a value.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.search.sampler_view import ENOUGH
from sweeps.states import State


@dataclass(frozen=True)
class Comparable:
    """Trials with a value at the same epoch."""

    values: dict[int, float]
    """Number of the trial -> value of the objective there."""
    epoch: int | None = None
    """None for the end of the trials."""

    @property
    def few(self) -> bool:
        """Whether they are too few to say much about any setting."""
        return len(self.values) < ENOUGH

    def describe(self, metric: str) -> str:
        """`val/nAP50 at epoch 4, which 31 trials reached`."""
        trials = "1 trial" if len(self.values) == 1 else f"{len(self.values)} trials"
        if self.epoch is None:
            return f"{metric} of the {trials} that completed"
        return f"{metric} at epoch {self.epoch}, which {trials} reached"


def comparable(data: SweepData) -> Comparable:
    """The latest epoch at which enough trials have a value; the one with the most values if none has enough."""
    views = [Comparable(_final(data))]
    views += [Comparable(_at(data, rung), rung) for rung in sorted(data.spec.rungs, reverse=True)]
    enough = next((view for view in views if not view.few), None)
    return enough or max(views, key=lambda view: len(view.values))


def _final(data: SweepData) -> dict[int, float]:
    done = (t.record for t in data.trials if t.record.state is State.COMPLETED)
    return {record.number: record.value for record in done if record.value is not None}


def _at(data: SweepData, rung: int) -> dict[int, float]:
    """Values at a rung; of a trial that ended before it, that of its end."""
    found = {}
    for trial in data.trials:
        value = trial.curve.get(rung)
        if value is None and trial.record.state is State.COMPLETED and trial.curve:
            value = trial.curve[max(trial.curve)] if max(trial.curve) < rung else None
        if value is not None and not trial.exploded:
            found[trial.number] = value
    return found


Pairs = Sequence[tuple[ShownTrial, float]]
"""Trials with the values that may be compared."""


class _Given:
    """An Optuna storage that holds given trials: adding a trial to a study copies it, at the cost of an evaluation."""

    def __init__(self, empty: BaseStorage, trials: Sequence[FrozenTrial]) -> None:
        self._empty = empty
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._empty, name)

    def get_all_trials(
        self,
        study_id: int,  # noqa: ARG002 - there is one
        deepcopy: bool = True,  # noqa: ARG002 - its readers change nothing
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials in these states."""
        return [t for t in self._trials if states is None or t.state in states]


def study_of(data: SweepData, trials: Pairs) -> optuna.Study:
    """A study of these trials with these values."""
    distributions = data.spec.distributions()
    now, frozen = datetime.now(), list[FrozenTrial]()
    for number, (trial, value) in enumerate(trials):
        given = {key: v for key, v in trial.record.parameters.items() if key in distributions}
        frozen.append(
            FrozenTrial(
                number=trial.number,
                trial_id=number,
                state=TrialState.COMPLETE,
                value=value,
                params=given,
                distributions={key: distributions[key] for key in given},
                datetime_start=now,
                datetime_complete=now,
                user_attrs={},
                system_attrs={},
                intermediate_values={},
            )
        )
    storage = optuna.storages.InMemoryStorage()
    empty = optuna.create_study(storage=storage, direction=data.spec.objective.direction)
    view = cast("BaseStorage", _Given(storage, frozen))
    return optuna.load_study(study_name=empty.study_name, storage=view)


def pairs_of(data: SweepData, view: Comparable) -> Pairs:
    """The trials of a view with their values."""
    return [(t, view.values[t.number]) for t in data.trials if t.number in view.values]
