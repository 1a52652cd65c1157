"""`EffectCheck`: ends a sweep whose trials do not train with the settings that were suggested for them."""

from __future__ import annotations

from fsdet.command import ExitCode
from sweeps.search.stopping import StoppingCriteria, StopReason
from sweeps.trial.effect import FirstSteps
from sweeps.trial.messages import TrialEnd, TrialReport, TrialRequest


class EffectCheck:
    """A callback of trials; see `sweeps.trial.effect`.

    Args:
        stopping: criteria of the session.
    """

    def __init__(self, stopping: StoppingCriteria) -> None:
        self._stopping = stopping
        self._first_steps = FirstSteps()

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        """Check the first step, which a trial sends once."""
        if report.first_step is None:
            return
        why = self._first_steps.check(request.label, request.config, report.first_step)
        if why is not None:
            self._stopping.request(StopReason(why, ExitCode.WRONG_SETTINGS))

    def on_start(self, request: TrialRequest) -> None:
        """Nothing: a trial has not taken a step yet."""

    def on_retry(self, request: TrialRequest) -> None:
        """Nothing: it starts over and reports again."""

    def on_end(self, end: TrialEnd) -> None:
        """Nothing: its first step was checked."""
