"""Schedulers: who stops the trials that are merely worse than their peers.

None of them pauses a trial. Ray's own `HyperBandScheduler` does, and a function that is paused has
to begin anew: of eight trials, two at a time, three were lost and none was pruned. `hyperband` is
therefore ASHA with several brackets (Li et al., "A System for Massively Parallel Hyperparameter
Tuning", 2020), which asks the same question without waiting for a bracket to fill.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from sweeps.spec import SweepSpec

OBJECTIVE = "objective"
"""Key in a trial's report: the best value so far; a trial that went wrong ends without it."""
EPOCH = "epoch"
"""Key in a trial's report: epochs done, the schedulers' unit of time."""
BASELINE = "baseline"
"""Key in a trial's config: name of the baseline, or None."""
BRACKETS = 3
"""Of hyperband: the first rung lies at `grace`, one and two rungs later."""


def build_scheduler(spec: SweepSpec, epochs: int) -> TrialScheduler:
    """The Ray Tune scheduler of a sweep. Each spares the baselines.

    Args:
        spec: the sweep, checked.
        epochs: longest trial.
    """
    scheduler, mode = spec.scheduler, spec.objective.mode
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


def is_spared(trial: Any) -> bool:
    """Whether a trial is a baseline: the winner is compared with whole runs."""
    return trial.config.get(BASELINE) is not None


class SparingAsha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that never stops a baseline."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """Put a trial into the bracket of its number.

        As likely as Ray has it, a bracket of one rung less 1/e as often, but by a chance of its
        own, so that a resumed sweep finds every trial in its old bracket.
        """
        bracket = self._bracket_of(trial.config["number"])
        for _, recorded in bracket._rungs:
            if (earlier := _recalled(trial.config["number"])) in recorded:
                recorded[trial.trial_id] = recorded.pop(earlier)
        self._trial_info[trial.trial_id] = bracket

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP after a report; a report without objective leaves the rungs alone."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE) if is_spared(trial) else decision

    def recall(self, number: int, values: Mapping[int, float]) -> None:
        """Fill the rungs with what a trial reported before its sweep was resumed.

        Args:
            number: of the trial, ended or to go on.
            values: epoch -> objective, the best value so far.
        """
        bracket, trial = self._bracket_of(number), SimpleNamespace(trial_id=_recalled(number))
        for epoch in sorted(values):
            bracket.on_result(trial, epoch, self._metric_op * values[epoch])

    def _bracket_of(self, number: int) -> Any:
        rungs = np.array([len(bracket._rungs) for bracket in self._brackets])
        weights = np.exp(rungs - rungs.max())
        chance = np.random.default_rng(number)
        return self._brackets[chance.choice(len(rungs), p=weights / weights.sum())]


class SparingMedian(MedianStoppingRule):  # type: ignore[misc]
    """Stops a trial whose best value is worse than the median of its peers' means, not a baseline.

    Args:
        mode: `max` or `min`.
        grace: epochs that every trial gets.
    """

    def __init__(self, mode: str, grace: int) -> None:
        # with a slice of time Ray would pause trials, as long as it has too few to compare with
        super().__init__(
            time_attr=EPOCH,
            metric=OBJECTIVE,
            mode=mode,
            grace_period=grace,
            min_time_slice=math.inf,
        )

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A new trial, or one that goes on in a resumed sweep."""
        super().on_trial_add(tune_controller, trial)
        if (earlier := _recalled(trial.config["number"])) in self._results:
            self._results[trial] = self._results.pop(earlier)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP after a report."""
        if OBJECTIVE not in result:
            return str(TrialScheduler.CONTINUE)
        decision: str = super().on_trial_result(tune_controller, trial, _bare(result))
        if not is_spared(trial):
            return decision
        self._stopped_trials.discard(trial)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Remember the last report; that of a trial that exploded or failed holds no value."""
        if OBJECTIVE in result:
            super().on_trial_complete(tune_controller, trial, _bare(result))

    def recall(self, number: int, values: Mapping[int, float]) -> None:
        """Remember a peer; see `SparingAsha.recall`."""
        reports = [{EPOCH: epoch, OBJECTIVE: values[epoch]} for epoch in sorted(values)]
        if reports:
            self._results[_recalled(number)] = reports


def _recalled(number: int) -> str:
    """Stands for the id of a trial until that trial goes on."""
    return f"recalled {number}"


def _bare(result: dict[str, Any]) -> dict[str, Any]:
    """What a scheduler must keep of a report."""
    return {EPOCH: result[EPOCH], OBJECTIVE: result[OBJECTIVE]}
