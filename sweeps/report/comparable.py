"""Values of trials that may be compared: all measured at the same epoch.

With rungs, most trials never reach their end, and the value of one that was paused early says little beside that of
one that ended. So figures over the search space show the latest epoch at which enough trials have a value.
"""

from __future__ import annotations

from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

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


def study_of(data: SweepData, trials: list[tuple[ShownTrial, float]]) -> optuna.Study:
    """A study in memory that holds these trials with these values, for Optuna's evaluators and figures."""
    study = optuna.create_study(direction=data.spec.objective.direction)
    distributions = data.spec.distributions()
    for trial, value in trials:
        given = {key: v for key, v in trial.record.parameters.items() if key in distributions}
        used = {key: distributions[key] for key in given}
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE, params=given, distributions=used, value=value
            )
        )
    return study


def pairs_of(data: SweepData, view: Comparable) -> list[tuple[ShownTrial, float]]:
    """The trials of a view with their values."""
    return [(t, view.values[t.number]) for t in data.trials if t.number in view.values]
