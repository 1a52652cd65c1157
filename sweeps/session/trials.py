"""`SessionTrials`: the trials of a study while a session runs them; decides the outcome of each.

Ray Tune's adapters ask it for trials and forward reports and ends to it. It computes the outcome and the
time of a trial once and sends both to the study, the stopping criteria and the callbacks, in this order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sweeps.search.promotion import Idle
from sweeps.search.searcher import StudySearcher
from sweeps.search.stopping import StoppingCriteria
from sweeps.states import Outcome, State
from sweeps.trial.failures import ALONE_TOO, OUT_OF_MEMORY
from sweeps.trial.messages import TrialCallback, TrialEnd, TrialReport, TrialRequest, outcome_of
from sweeps.trial.trial import TrialContext
from sweeps.trial.watchdog import stall_reason, stalled


@dataclass
class OpenTrial:
    """A trial that has not ended."""

    request: TrialRequest
    started: float | None = None
    """Monotonic time at which a worker started it; None before."""
    last: TrialReport | None = None
    """Its last report, without history."""


class SessionTrials:
    """The trials of one study in one session.

    Args:
        searcher: of the study.
        stopping: stopping criteria of the session.
        callbacks: called for every trial that a worker has started.
        context: of the trials.
    """

    def __init__(
        self,
        searcher: StudySearcher,
        stopping: StoppingCriteria,
        callbacks: Sequence[TrialCallback],
        context: TrialContext,
    ) -> None:
        self._searcher = searcher
        self._stopping = stopping
        self._callbacks = callbacks
        self._context = context
        self._open: dict[int, OpenTrial] = {}

    def next_request(self) -> TrialRequest | Idle:
        """The next trial to run; DONE when the sweep is over or about to stop."""
        request = self._searcher.next_request()
        if isinstance(request, TrialRequest):
            self._open[request.number] = OpenTrial(request)
        return request

    def on_start(self, request: TrialRequest) -> None:
        """A worker starts a trial, or starts it again after its worker died."""
        trial = self._open[request.number]
        trial.request = request
        if trial.started is not None:
            return
        trial.started = time.monotonic()
        for callback in self._callbacks:
            callback.on_start(request)
        if request.retried:  # an earlier session ran out of memory
            self.on_retry(request)

    def on_report(self, number: int, report: TrialReport) -> None:
        """A trial reported."""
        trial = self._open[number]
        trial.last = replace(report, history={}, first_step=None)
        self._searcher.on_report(trial.request, report)
        for callback in self._callbacks:
            callback.on_report(trial.request, report)

    def on_retry(self, request: TrialRequest) -> None:
        """A trial ran out of memory and is restarted alone."""
        self._open[request.number].request = request
        self._searcher.on_retry(request)
        for callback in self._callbacks:
            callback.on_retry(request)

    def on_end(self, number: int, crash: str | None) -> None:
        """A trial ended.

        Args:
            number: of the trial.
            crash: why its worker died, empty if unknown; None if it did not die.
        """
        trial = self._open.pop(number)
        crash = None if crash is None else self._explain(trial, crash)
        self._end(trial, outcome_of(trial.last, crash))

    def poll(self) -> None:
        """Check the stopping criteria.

        Raises:
            SweepStopped: one is met.
        """
        now = time.monotonic()
        started = [t.started for t in self._open.values() if t.started is not None]
        self._stopping.check([now - at for at in started])

    def close(self, reason: str = "the sweep ended before the trial") -> int:
        """Record all trials that are still open as interrupted; returns their number."""
        trials = list(self._open.values())
        self._open.clear()
        for trial in trials:
            self._end(trial, Outcome(State.INTERRUPTED, reason))
        return len(trials)

    @property
    def is_open(self) -> bool:
        """Whether a trial has neither ended nor paused."""
        return bool(self._open)

    def prune_paused(self) -> None:
        """End the trials that were not promoted, at the end of the sweep, and free their disk space."""
        for request, outcome in self._searcher.paused():
            end = TrialEnd(request, outcome, None, 0.0, None)
            self._searcher.on_end(end)
            for callback in self._callbacks:
                callback.on_end(end)
            self._context.remove_checkpoints(request.folder)

    def _end(self, trial: OpenTrial, outcome: Outcome) -> None:
        seconds = 0.0 if trial.started is None else time.monotonic() - trial.started
        best = None if trial.last is None else trial.last.best
        value = None if best is None else best.value
        end = TrialEnd(trial.request, outcome, value, seconds, trial.last)
        self._searcher.on_end(end)
        self._stopping.on_end(end)
        if trial.started is not None:  # one that never started has no run
            for callback in self._callbacks:
                callback.on_end(end)

    def _explain(self, trial: OpenTrial, crash: str) -> str:
        """Why the worker of a trial died."""
        run_dir = self._context.run_dir(trial.request.folder)
        if stalled(run_dir):
            return stall_reason(run_dir, self._context.stall_minutes)
        first = trial.request.retried
        if first and crash.startswith(OUT_OF_MEMORY):
            return crash + ALONE_TOO
        if first:
            return f"the worker process died when retried alone, the first time with: {first}"
        return crash or "the worker process raised or died; see the log of the trial"
