"""Schedulers: stop trials that do worse than their peers, never baselines.

None of them pauses a trial. Ray's own `HyperBandScheduler` does, and a paused function trainable has to
start over: of eight trials, two at a time, three were lost and none was pruned. `hyperband` is therefore
ASHA with several brackets (Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020),
which compares the same things without waiting for a bracket to fill.

Ray's schedulers keep their rungs in memory only; `restore_rungs` fills them from the study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from sweeps.config import SweepSpec
from sweeps.ray_tune import internals
from sweeps.trial.messages import TrialRequest

REQUEST = "request"
"""Key of the `TrialRequest` in the config of a trial of Ray Tune."""
OBJECTIVE, EPOCH = "objective", "epoch"
"""Keys in a result of Ray Tune: the best value so far, and the epoch, the schedulers' unit of time."""
BRACKETS = 3
"""Number of brackets of hyperband: their first rungs lie at `grace`, and one and two rungs later."""

Curves = Mapping[int, Mapping[int, float]]
"""Number of a trial -> epoch -> best value so far."""


def build_scheduler(spec: SweepSpec) -> TrialScheduler:
    """The Ray Tune scheduler of a checked sweep."""
    scheduler, mode, epochs = spec.scheduler, spec.objective.mode, spec.max_epochs
    if scheduler.name == "none" or scheduler.grace >= epochs:
        return FIFOScheduler()
    if scheduler.name == "median":
        return SparingMedian(mode, scheduler.grace)
    rungs = int(math.log(epochs / scheduler.grace) / math.log(scheduler.reduction)) + 1
    return SparingAsha(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode=mode,
        max_t=epochs,
        grace_period=scheduler.grace,
        reduction_factor=scheduler.reduction,
        brackets=min(BRACKETS, rungs) if scheduler.name == "hyperband" else 1,
    )


def restore_rungs(scheduler: TrialScheduler, curves: Curves) -> None:
    """Fill the rungs with the reports of earlier sessions, from trials that ended or are unfinished."""
    if isinstance(scheduler, SparingAsha | SparingMedian):
        for number, curve in curves.items():
            scheduler.restore_curve(number, curve)


def request_of(trial: Trial) -> TrialRequest:
    """The request that a trial of Ray Tune carries in its config."""
    request: TrialRequest = trial.config[REQUEST]
    return request


def is_baseline(trial: Trial) -> bool:
    """Whether a trial is a baseline: the winner is compared with complete runs of them."""
    return request_of(trial).baseline is not None


class SparingAsha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that never stops a baseline."""

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ARG002
        """Put a trial into the bracket drawn for its number.

        The probabilities are Ray's (each rung less makes a bracket 1/e as likely). The trial's number is
        the seed, so that a resumed sweep puts every trial into its old bracket.
        """
        number = request_of(trial).number
        bracket = self._bracket_of(number)
        for recorded in internals.rungs_of(bracket):
            if (earlier := _restored(number)) in recorded:
                recorded[trial.trial_id] = recorded.pop(earlier)
        internals.assign_bracket(self, trial, bracket)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """CONTINUE or STOP after a report; a report without objective does not change the rungs."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE) if is_baseline(trial) else decision

    def restore_curve(self, number: int, curve: Mapping[int, float]) -> None:
        """Fill the rungs with what a trial reported before its sweep was resumed.

        Args:
            number: of the trial, ended or not.
            curve: epoch -> objective, the best value so far.
        """
        bracket, trial = self._bracket_of(number), SimpleNamespace(trial_id=_restored(number))
        for epoch in sorted(curve):
            internals.record_in_bracket(self, bracket, trial, epoch, curve[epoch])

    def _bracket_of(self, number: int) -> Any:
        brackets = internals.brackets_of(self)
        rungs = np.array([len(internals.rungs_of(bracket)) for bracket in brackets])
        weights = np.exp(rungs - rungs.max())
        chance = np.random.default_rng(number)
        return brackets[chance.choice(len(rungs), p=weights / weights.sum())]


class SparingMedian(MedianStoppingRule):  # type: ignore[misc]
    """Stops a trial whose best value is worse than the median of its peers' means, never a baseline.

    Args:
        mode: `max` or `min`.
        grace: epochs that every trial gets.
    """

    def __init__(self, mode: str, grace: int) -> None:
        # with a time slice Ray would pause trials while there are too few to compare with
        super().__init__(
            time_attr=EPOCH,
            metric=OBJECTIVE,
            mode=mode,
            grace_period=grace,
            min_time_slice=math.inf,
        )

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """A new trial, or one that resumes with its sweep."""
        super().on_trial_add(tune_controller, trial)
        results = internals.results_of(self)
        if (earlier := _restored(request_of(trial).number)) in results:
            results[trial] = results.pop(earlier)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """CONTINUE or STOP after a report."""
        if OBJECTIVE not in result:
            return str(TrialScheduler.CONTINUE)
        decision: str = super().on_trial_result(tune_controller, trial, _needed(result))
        if not is_baseline(trial):
            return decision
        internals.unstop(self, trial)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Store the last report; that of a trial that exploded or failed has no value."""
        if OBJECTIVE in result:
            super().on_trial_complete(tune_controller, trial, _needed(result))

    def restore_curve(self, number: int, curve: Mapping[int, float]) -> None:
        """Store the reports of a peer; see `SparingAsha.restore_curve`."""
        reports = [{EPOCH: epoch, OBJECTIVE: curve[epoch]} for epoch in sorted(curve)]
        if reports:
            internals.results_of(self)[_restored(number)] = reports


def _restored(number: int) -> str:
    """Placeholder for the id of a trial of an earlier session until it resumes."""
    return f"restored {number}"


def _needed(result: dict[str, Any]) -> dict[str, Any]:
    """The part of a result that a scheduler must store."""
    return {EPOCH: result[EPOCH], OBJECTIVE: result[OBJECTIVE]}
