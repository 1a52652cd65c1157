"""Stopping criteria: why a sweep ends before all its trials are done, and with which exit code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fsdet.command import ExitCode
from sweeps.config import SweepSpec
from sweeps.states import ENDED, Outcome, State
from sweeps.study.records import TrialRecord
from sweeps.trial.messages import TrialEnd


@dataclass(frozen=True)
class StopReason:
    """Why a sweep ends early."""

    text: str
    """For messages."""
    exit_code: ExitCode = ExitCode.OK
    """OK if the YAML asks for it: a budget is spent, the target is reached."""

    @property
    def outcome(self) -> Outcome:
        """Outcome of the sweep."""
        match self.exit_code:
            case ExitCode.OK:
                return Outcome(State.COMPLETED, self.text)
            case ExitCode.INTERRUPTED | ExitCode.TERMINATED:
                return Outcome(State.INTERRUPTED, self.text)
            case _:
                return Outcome(State.FAILED, self.text)


class SweepStopped(BaseException):
    """Leaves Ray Tune's loop at once.

    A `BaseException`, since Tune waits for its workers on any `Exception`, and a worker in a long step
    cannot be asked to end. Its trial resumes from the last checkpoint.
    """


class StoppingCriteria:
    """Checks budget, target and failures; stores the first reason to stop.

    Args:
        spec: gives the limits.
        earlier: trials of earlier sessions of this sweep.
        seconds: wall time of earlier sessions.
    """

    def __init__(
        self, spec: SweepSpec, earlier: Iterable[TrialRecord] = (), seconds: float = 0.0
    ) -> None:
        earlier = list(earlier)
        self._spec = spec
        self._began = time.monotonic()
        self._seconds_before = seconds
        self._trial_seconds = sum(t.seconds for t in earlier)
        self._running: Sequence[float] = ()
        self._workers = 1
        self._ended: set[int] = set()
        self._failed = 0
        self.reason: StopReason | None = None
        for trial in earlier:
            self._check_target(trial.state, trial.value)

    @property
    def seconds(self) -> float:
        """Wall time of the sweep so far, all sessions together."""
        return self._seconds_before + time.monotonic() - self._began

    def request(self, reason: StopReason) -> None:
        """Stop as soon as possible. The first reason counts."""
        self.reason = self.reason or reason

    def on_end(self, end: TrialEnd) -> None:
        """A trial ended or paused: most healthy trials pause, long before they end."""
        self._trial_seconds += end.seconds
        if end.outcome.state in (*ENDED, State.PAUSED):
            self._ended.add(end.number)
            self._failed += end.outcome.state is State.FAILED
            self._check_target(end.outcome.state, end.value)
            self._check_failures(end.outcome)

    def check(self, running: Sequence[float] = ()) -> None:
        """Raise if there is a reason to stop.

        Args:
            running: wall time so far of each running trial, in seconds.

        Raises:
            SweepStopped: a criterion is met; `reason` says which.
        """
        self._running = running
        self._workers = max(self._workers, len(running))
        self._check_budget()
        if self.reason is not None:
            raise SweepStopped

    def affordable(self, trained: int) -> float | None:
        """Epochs that all trials together may take within the budget; None for no limit, or none known yet.

        What a limit in hours allows follows from the time that the epochs so far took.

        Args:
            trained: epochs behind all trials.
        """
        budget, longest, workers = self._spec.budget, self._spec.max_epochs, self._workers
        limits = [] if budget.trainings is None else [budget.trainings * longest]
        if trained and budget.hours is not None:
            epoch = workers * self.seconds / trained  # what passes between trials counts, too
            left = (3600 * budget.hours - self.seconds) / epoch
            # on several workers the last trial ends later than an even share of the work (Graham 1966)
            done = trained + sum(self._running) / epoch
            limits.append(done + workers * left - (workers - 1) * longest)
        if trained and self._trial_seconds and budget.gpu_hours is not None:
            seconds = 3600 * budget.gpu_hours / self._spec.resources.gpu_share
            limits.append(seconds / (self._trial_seconds / trained))
        return min(limits, default=None)

    def _check_budget(self) -> None:
        budget = self._spec.budget
        if budget.hours is not None and self.seconds > 3600 * budget.hours:
            self.request(StopReason(f"its time is over (budget.hours {budget.hours:g})"))
        if budget.gpu_hours is not None:
            seconds = self._trial_seconds + sum(self._running)
            if seconds * self._spec.resources.gpu_share > 3600 * budget.gpu_hours:
                self.request(
                    StopReason(f"its GPU time is over (budget.gpu_hours {budget.gpu_hours:g})")
                )

    def _check_target(self, state: State, value: float | None) -> None:
        target = self._spec.budget.target
        if target is None or value is None or state is not State.COMPLETED:
            return
        sign = self._spec.objective.sign
        if sign * value >= sign * target:
            self.request(
                StopReason(f"the target is reached: {value:.4f} (budget.target {target:g})")
            )

    def _check_failures(self, last: Outcome) -> None:
        limit = self._spec.failures
        ended = len(self._ended)
        if ended >= limit.after and self._failed > limit.max_fraction * ended:
            self.request(
                StopReason(
                    f"{self._failed} of {ended} trials failed (failures.max_fraction "
                    f"{limit.max_fraction:g}), the last one so: {last.reason}",
                    ExitCode.TOO_MANY_FAILURES,
                )
            )
