"""Schedulers: who stops the trials that are merely worse than their peers."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from sweeps.spec import Objective, SchedulerSpec

OBJECTIVE = "objective"
"""Key in a trial's report: the best value so far; a trial that went wrong ends without it."""
EPOCH = "epoch"
"""Key in a trial's report: epochs done, the schedulers' unit of time."""
BASELINE = "baseline"
"""Key in a trial's config: name of the baseline, or None."""


class SparingAsha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA that never stops a baseline: the winner is compared with whole runs."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """CONTINUE or STOP after a report; a report without objective leaves the rungs alone."""
        decision: str = super().on_trial_result(tune_controller, trial, result)
        spared = trial.config.get(BASELINE) is not None
        return str(TrialScheduler.CONTINUE) if spared else decision


def build_scheduler(spec: SchedulerSpec, objective: Objective, epochs: int) -> TrialScheduler:
    """The Ray Tune scheduler of a sweep.

    Args:
        spec: name and rungs.
        objective: gives the direction.
        epochs: longest trial.
    """
    if spec.name == "none" or spec.grace >= epochs:
        return FIFOScheduler()
    return SparingAsha(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode=objective.mode,
        max_t=epochs,
        grace_period=spec.grace,
        reduction_factor=spec.reduction,
    )
