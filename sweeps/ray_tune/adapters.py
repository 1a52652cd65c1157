"""Ray Tune's searcher, scheduler and callback, which forward every event to the trials of a session.

A trial that pauses and is promoted later is two trials of Ray Tune, which never pauses anything itself. No
scheduler of Ray's stops a trial.

A trial that ran out of memory is retried once, alone. It has the same number, run and place in the rungs,
and resumes from its newest checkpoint in a new process, so that the memory of the first one is free. Ray
Tune restarts a trial whose worker died; `Retries` gives it more resources for that. While it waits for
them, no other trial starts: small trials would take every free core, and it would wait until the end of
the sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from sweeps.ray_tune import internals
from sweeps.ray_tune.sealed import Sealed
from sweeps.search.promotion import Idle
from sweeps.trial.failures import OUT_OF_MEMORY, cause_of_death, kernel_kills
from sweeps.trial.messages import TrialReport, TrialRequest

REQUEST = "request"
"""Key of the sealed `TrialRequest` in the config of a trial of Ray Tune."""
REPORT, RETIRE_WORKER = "report", "retire_worker"
"""Keys in a result of Ray Tune."""


def request_of(trial: Trial) -> TrialRequest:
    """The request that a trial of Ray Tune carries in its config."""
    request: Sealed[TrialRequest] = trial.config[REQUEST]
    return request.value


class Trials(Protocol):
    """What the adapters need of the trials of a session; independent of Ray."""

    def next_request(self) -> TrialRequest | Idle:
        """The next trial to run, or why there is none now."""

    def on_start(self, request: TrialRequest) -> None:
        """A worker starts a trial, or starts it again after its worker died."""

    def on_report(self, number: int, report: TrialReport) -> None:
        """A trial reported."""

    def on_retry(self, request: TrialRequest) -> None:
        """A trial ran out of memory and is restarted alone."""

    def on_end(self, number: int, crash: str | None) -> None:
        """A trial ended. `crash`: why its worker died; None if it did not."""

    def poll(self) -> None:
        """Called after every step of Ray Tune's loop; stops it by raising."""


def to_result(report: TrialReport) -> dict[str, Any]:
    """A report as a result of Ray Tune."""
    return {
        REPORT: Sealed(report),
        **({RETIRE_WORKER: True} if report.retire_worker else {}),
    }


class WorkerFailures:
    """Determines why workers died, once for each: a kill by the kernel explains one death only."""

    def __init__(self) -> None:
        self._explained = kernel_kills()
        self._causes: dict[tuple[str, int], str] = {}

    def cause(self, trial: Trial) -> str:
        """The reason of the latest failure of a trial."""
        key = (trial.trial_id, internals.failure_count(trial))
        if key not in self._causes:
            killed = kernel_kills() > self._explained
            cause = cause_of_death(internals.latest_failure(trial), int(killed))
            self._explained += killed and "the kernel killed" in cause
            self._causes[key] = cause
        return self._causes[key]


class Retries:
    """Restarts of trials that ran out of memory.

    Args:
        trials: of the session.
        needs: request -> resources that Ray must reserve for it.
        failures: why workers died.
    """

    def __init__(
        self,
        trials: Trials,
        needs: Callable[[TrialRequest], tune.PlacementGroupFactory],
        failures: WorkerFailures,
    ) -> None:
        self._trials, self._needs, self._failures = trials, needs, failures
        self._waiting: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles its callbacks for its own way of resuming, which is not used."""
        return {}

    @property
    def waiting(self) -> bool:
        """Whether a trial waits to run alone."""
        return bool(self._waiting)

    def on_suggest(self, trial_id: str, request: TrialRequest) -> None:
        """Mark a trial that ran out of memory in an earlier session: it must run alone, too."""
        if request.retried:
            self._waiting.add(trial_id)

    def on_start(self, trial: Trial) -> None:
        """The trial no longer waits."""
        self._waiting.discard(trial.trial_id)

    def on_error(self, trial: Trial) -> None:
        """Prepare the restart of a trial; one that ran out of memory gets more resources.

        Called after the trial has released its worker and before it waits for another one.
        """
        self._waiting.discard(trial.trial_id)
        if trial.status != Trial.ERROR:  # still "running": Ray does not restart it
            return
        cause = self._failures.cause(trial)
        request = replace(request_of(trial), last_try=True)
        if not cause.startswith(OUT_OF_MEMORY):
            internals.change_trial(trial, {**trial.config, REQUEST: Sealed(request)})
            return
        request = replace(request, retried=cause)
        internals.change_trial(
            trial, {**trial.config, REQUEST: Sealed(request)}, self._needs(request)
        )
        self._waiting.add(trial.trial_id)


class RaySearcher(Searcher):  # type: ignore[misc]
    """Gets the next trial from the trials of a session, and reports ends to them.

    Args:
        trials: of the session.
        retries: while one waits, no trial is suggested.
        failures: why workers died.
    """

    def __init__(self, trials: Trials, retries: Retries, failures: WorkerFailures) -> None:
        super().__init__(metric=REPORT, mode="max")  # required; Ray compares nothing here
        self._trials, self._retries, self._failures = trials, retries, failures
        self._numbers: dict[str, int] = {}
        self.ray_trials: dict[str, Trial] = {}
        """Started ones, by id."""

    def __getstate__(self) -> dict[str, Any]:
        """The attributes of Ray's base class only, as with `Retries`."""
        return internals.searcher_state(self)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._retries.waiting:
            return None
        request = self._trials.next_request()
        if request is Idle.DONE:
            return str(Searcher.FINISHED)
        if request is Idle.WAIT:
            return None
        self._numbers[trial_id] = request.number
        self._retries.on_suggest(trial_id, request)
        return {REQUEST: Sealed(request)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: `RayCallback` forwards reports."""

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,  # noqa: ARG002
        error: bool = False,
    ) -> None:
        number = self._numbers.pop(trial_id, None)
        if number is None:  # Ray may report the end of a failing trial twice
            return
        trial = self.ray_trials.pop(trial_id, None)
        cause = self._failures.cause(trial) if error and trial is not None else ""
        self._trials.on_end(number, cause if error else None)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""


class RayCallback(TrialProgressCallback):  # type: ignore[misc]
    """Forwards starts, restarts and reports.

    It stands in the place of Ray's own progress callback, which prints what nobody reads and keeps every trial.

    Args:
        trials: of the session.
        searcher: gets Ray's trial, to explain a crash.
        retries: of this session.
    """

    def __init__(self, trials: Trials, searcher: RaySearcher, retries: Retries) -> None:
        self._trials, self._searcher, self._retries = trials, searcher, retries

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as with `Retries`."""
        return {}

    def on_step_end(self, **_: Any) -> None:
        self._trials.poll()

    def on_trial_start(self, *, trial: Trial, **_: Any) -> None:
        self._searcher.ray_trials[trial.trial_id] = trial
        self._retries.on_start(trial)
        self._trials.on_start(request_of(trial))

    def on_trial_recover(self, *, trial: Trial, **_: Any) -> None:
        if request_of(trial).retried:
            self._trials.on_retry(request_of(trial))

    def on_trial_result(self, *, trial: Trial, result: dict[str, Any], **_: Any) -> None:
        # Ray stores a trial's last result and writes it into every snapshot
        self._trials.on_report(request_of(trial).number, result.pop(REPORT).value)

    def on_trial_error(self, **_: Any) -> None:
        """Nothing: the searcher is told."""

    def on_trial_complete(self, **_: Any) -> None:
        """Nothing: the searcher is told."""


class RayScheduler(FIFOScheduler):  # type: ignore[misc]
    """Runs trials in the order in which they come; retires workers and prepares restarts.

    Args:
        retries: of this session.
    """

    def __init__(self, retries: Retries) -> None:
        super().__init__()
        self._retries = retries

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as with `Retries`."""
        return {}

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        self._retries.on_error(trial)
        super().on_trial_error(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        super().on_trial_complete(tune_controller, trial, result)
        if result.get(RETIRE_WORKER):  # Tune decides next whether to reuse the worker
            internals.retire_worker(tune_controller, trial)
        internals.forget_ended(tune_controller)  # not this one, which ends now

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is on disk after every change."""
