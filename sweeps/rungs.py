"""What a scheduler knew before the sweep was resumed, and workers that must not be used again.

Both reach into Ray Tune: its schedulers forget everything with their process, and its controller
reuses every worker whose trial ended without an error of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from sweeps.scheduler import EPOCH, OBJECTIVE
from sweeps.study import curve_of
from sweeps.trial import SPOILED


def recall(scheduler: TrialScheduler, trials: Iterable[FrozenTrial]) -> None:
    """Fill the rungs with what the ended trials of earlier sessions reported."""
    remember = getattr(scheduler, "recall", None)
    if remember is None:  # runs every trial to its end
        return
    for trial in trials:
        remember(trial.number, curve_of(trial))


class Recall(tune.Callback):  # type: ignore[misc]
    """Fills the rungs with what a trial that goes on reported before, under its new id.

    Without it ASHA would take the first new report for the value at every lower rung.
    """

    def __init__(
        self, scheduler: TrialScheduler, curves: Mapping[int, Mapping[int, float]]
    ) -> None:
        self._scheduler = scheduler
        self._curves = dict(curves)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as with `Recorder`."""
        return {}

    def on_trial_start(self, *, trial: Any, **_: Any) -> None:
        curve = self._curves.pop(trial.config["number"], {})
        if not isinstance(self._scheduler, AsyncHyperBandScheduler):
            return
        for epoch, value in sorted(curve.items()):
            # the decisions were taken then
            self._scheduler.on_trial_result(None, trial, {EPOCH: epoch, OBJECTIVE: value})


def replace_spoiled_workers(scheduler: TrialScheduler) -> None:
    """Let no trial follow in a worker whose last report says that it is spoiled.

    The scheduler hears of an end just before Tune decides whether it keeps the worker, which it
    does for started ones only.
    """
    told = scheduler.on_trial_complete

    def on_trial_complete(controller: Any, trial: Any, result: dict[str, Any]) -> None:
        told(controller, trial, result)
        if result.get(SPOILED):
            controller._started_actors.discard(controller._trial_to_actor.get(trial))

    scheduler.on_trial_complete = on_trial_complete
