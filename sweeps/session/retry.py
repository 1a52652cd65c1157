"""A trial that ran out of memory is tried once more, with nothing beside it.

It keeps its number, its run and its place in the rungs, and goes on from its newest checkpoint, in a
new process: all that the first one held is free. Ray Tune starts a trial again whose worker was
lost; in between, here, its resources grow. While it waits for them, no other trial begins: small
ones would take every core that comes free, and it would wait till the end of the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from sweeps.machine.machine import Machine
from sweeps.spec import Resources
from sweeps.trial.causes import OUT_OF_MEMORY, Deaths
from sweeps.trial.trial import ALONE, LAST_TRY

GPU_WORDS = ("CUDA", "CUBLAS", "CUDNN", "HIP")
"""In the reason of a trial that lacked memory on its card; else it was the machine's."""


class Retrying(Protocol):
    """The searcher, as far as it is needed here."""

    suggest: Callable[[str], dict[str, Any] | None]

    def retried(self, trial_id: str, why: str) -> None:
        """Remember that a trial is tried again, and why."""


def needs(
    config: dict[str, Any], resources: Resources, machine: Machine
) -> tune.PlacementGroupFactory:
    """What Ray must keep free for a trial.

    Args:
        config: the suggestion; empty where Ray asks without one.
        resources: of a trial among others.
        machine: that it has to itself where it lacked memory.
    """
    cpus, gpus = resources.cpus, resources.gpu_share
    if why := config.get(ALONE):
        cpus = cpus if gpus and any(word in why for word in GPU_WORDS) else machine.cpus
        gpus = math.ceil(gpus)
    bundle = {"CPU": float(cpus)} | ({"GPU": float(gpus)} if gpus else {})
    return tune.PlacementGroupFactory([bundle])


class RetryAlone(tune.Callback):  # type: ignore[misc]
    """Lets a trial that ran out of memory start again with more resources, and before all others.

    The scheduler hears of a failure when the trial has let go of its worker and does not wait for
    another one yet.

    Args:
        scheduler: of the trials.
        searcher: hands them out.
        needs_of: suggestion -> what Ray must keep free for it.
        deaths: why workers ended.
    """

    def __init__(
        self,
        scheduler: TrialScheduler,
        searcher: Retrying,
        needs_of: Callable[[dict[str, Any]], tune.PlacementGroupFactory],
        deaths: Deaths,
    ) -> None:
        self._searcher, self._needs_of, self._deaths = searcher, needs_of, deaths
        self._tell, self._suggest = scheduler.on_trial_error, searcher.suggest
        self._waiting: set[str] = set()
        scheduler.on_trial_error = self.on_failure
        searcher.suggest = self.suggest

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as with `Recorder`."""
        return {}

    def on_failure(self, controller: Any, trial: Trial) -> None:
        """Give a trial that is started again what it lacked."""
        why = self._deaths.cause(trial)
        self._waiting.discard(trial.trial_id)
        if trial.status == Trial.ERROR:  # else it still counts as running, and that was its end
            trial.set_config({**trial.config, LAST_TRY: True})
            if why.startswith(OUT_OF_MEMORY):
                self._start_alone(trial, why)
        self._tell(controller, trial)

    def _start_alone(self, trial: Trial, why: str) -> None:
        trial.set_config({**trial.config, ALONE: why})
        trial.update_resources(self._needs_of(trial.config))
        self._waiting.add(trial.trial_id)
        self._searcher.retried(trial.trial_id, why)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next configuration; None while one waits to run alone."""
        if self._waiting:
            return None
        suggestion = self._suggest(trial_id)
        if suggestion and suggestion.get(ALONE):  # so it is in a resumed sweep
            self._waiting.add(trial_id)
        return suggestion

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        self._waiting.discard(trial.trial_id)
