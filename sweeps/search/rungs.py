"""What a scheduler knew before the sweep was resumed, and workers that must not be used again.

Both reach into Ray Tune: its schedulers forget everything with their process, and its controller
reuses every worker whose trial ended without an error of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.schedulers import TrialScheduler

from sweeps.study.study import curve_of
from sweeps.trial.trial import SPOILED


def recall(scheduler: TrialScheduler, trials: Iterable[FrozenTrial]) -> None:
    """Fill the rungs with what the trials of earlier sessions reported, ended or to go on."""
    remember = getattr(scheduler, "recall", None)
    if remember is None:  # runs every trial to its end
        return
    for trial in trials:
        remember(trial.number, curve_of(trial))


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
