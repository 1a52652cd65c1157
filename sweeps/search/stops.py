"""Why a sweep ends before all its trials are done, and the exit code that says so."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from sweeps.spec import SweepSpec
from sweeps.states import ENDED, Outcome, State
from sweeps.study.study import TrialRecord

EXIT_NONE_COMPLETED, EXIT_MISTAKE = 1, 2
EXIT_FAILURES, EXIT_STUDY_LOST = 4, 5
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143


@dataclass(frozen=True)
class Stop:
    """An end before the end."""

    reason: str
    """In words, for the report."""
    exit_code: int = 0
    """0 where the sweep was told to end so: a budget is spent, the target is reached."""

    @property
    def outcome(self) -> Outcome:
        """State of the sweep as a whole."""
        if self.exit_code == 0:
            return Outcome(State.COMPLETED, self.reason)
        interrupted = self.exit_code in (EXIT_INTERRUPTED, EXIT_TERMINATED)
        return Outcome(State.INTERRUPTED if interrupted else State.FAILED, self.reason)


class SweepStopped(BaseException):
    """Leaves Ray Tune's loop at once.

    No `Exception`, since Tune would wait for its workers at any of those: a worker in a long step
    cannot be asked to end. What a trial had saved is all that it needs to go on.
    """


class Stops:
    """Watches the budget and the failures; remembers the first reason to stop.

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
        self._running: dict[int, float] = {}
        self._ended = self._failed = 0
        self.stop: Stop | None = None
        for trial in earlier:
            self._look_at(trial.state, trial.value)

    @property
    def seconds(self) -> float:
        """Wall time of the sweep so far, all sessions together."""
        return self._seconds_before + time.monotonic() - self._began

    def request(self, stop: Stop) -> None:
        """Stop as soon as possible. The first reason counts."""
        self.stop = self.stop or stop

    def started(self, number: int) -> None:
        """A trial began or goes on."""
        self._running.setdefault(number, time.monotonic())

    def ended(self, number: int, outcome: Outcome, value: float | None) -> float:
        """A trial ended with `value` of the objective; returns its seconds in this session."""
        now = time.monotonic()
        seconds = now - self._running.pop(number, now)
        self._trial_seconds += seconds
        if outcome.state in ENDED:
            self._ended += 1
            self._failed += outcome.state is State.FAILED
            self._look_at(outcome.state, value)
            self._look_at_failures(outcome)
        return seconds

    def check(self) -> None:
        """Raise if there is a reason to stop.

        Raises:
            SweepStopped: there is; `stop` says why.
        """
        self._look_at_budget()
        if self.stop is not None:
            raise SweepStopped

    def _look_at_budget(self) -> None:
        budget = self._spec.budget
        if budget.hours is not None and self.seconds > 3600 * budget.hours:
            self.request(Stop(f"its time is over (budget.hours {budget.hours:g})"))
        if budget.gpu_hours is not None:
            now = time.monotonic()
            seconds = self._trial_seconds + sum(now - began for began in self._running.values())
            if seconds * self._spec.resources.gpu_share > 3600 * budget.gpu_hours:
                self.request(Stop(f"its GPU time is over (budget.gpu_hours {budget.gpu_hours:g})"))

    def _look_at(self, state: State, value: float | None) -> None:
        target = self._spec.budget.target
        if target is None or value is None or state is not State.COMPLETED:
            return
        sign = 1 if self._spec.objective.mode == "max" else -1
        if sign * value >= sign * target:
            self.request(Stop(f"the target is reached: {value:.4f} (budget.target {target:g})"))

    def _look_at_failures(self, last: Outcome) -> None:
        limit = self._spec.failures
        if self._ended >= limit.after and self._failed > limit.max_fraction * self._ended:
            self.request(
                Stop(
                    f"{self._failed} of {self._ended} trials failed (failures.max_fraction "
                    f"{limit.max_fraction:g}), the last one so: {last.reason}",
                    EXIT_FAILURES,
                )
            )
