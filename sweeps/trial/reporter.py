"""Turns the trainer's reports into messages to the driver."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from fsdet.report import Report
from sweeps.config import Objective
from sweeps.trial.messages import Phase, TrialReport, find_metric, find_raw_metric, to_report
from sweeps.trial.trial_dir import TrialDir
from sweeps.trial.watchdog import Watchdog
from sweeps.trial.worker import Costs, has_leaked

log = logging.getLogger(__name__)


class NoObjectiveError(Exception):
    """An evaluation did not measure the objective."""


class Reporter:
    """Callback of the trainer. All files are synced before a report is sent.

    Args:
        objective: a report without a finite value of it fails the trial, unless it reports an explosion.
        send: sends a report to the driver.
        trial_dir: of the trial.
    """

    def __init__(
        self, objective: Objective, send: Callable[[TrialReport], None], trial_dir: TrialDir
    ) -> None:
        self._objective = objective
        self._send = send
        self._trial_dir = trial_dir
        self._last = TrialReport("running")
        self._set_aside: list[str] = []
        self._watchdog: Watchdog | None = None
        self._costs: Costs | None = None
        self._leaks = False
        self._proven = False

    @property
    def phase(self) -> Phase:
        """Of the last report."""
        return self._last.phase

    def set_aside(self, what: str | None) -> None:
        """Add to the next report a note on files from which the trial does not resume."""
        if what is not None:
            log.warning("%s: %s", self._trial_dir.run_dir, what)
            self._set_aside.append(what)

    def begin(self, watchdog: Watchdog, resumed: bool) -> None:
        """Training starts now."""
        self._watchdog, self._costs, self._leaks = watchdog, Costs(resumed), has_leaked()

    def __call__(self, report: Report) -> None:
        """Send `report`.

        Raises:
            NoObjectiveError: it has no finite value of the objective though the run has not exploded.
        """
        if self._watchdog is not None:
            self._watchdog.reset()
        self._last = to_report(report, self._objective.name)
        if self._proven:
            self._last = replace(self._last, first_step=None)
        self._proven |= report.first_step is not None
        if self._costs is not None:
            self._last = replace(self._last, costs=self._costs.after(report))
        value = None
        if report.phase != "exploded":
            for metrics in filter(None, (report.metrics, report.final)):
                self._require(metrics, report.epoch)
            assert report.best is not None
            value = find_metric(report.best.metrics, self._objective.name)
        self._trial_dir.sync()
        self._emit(replace(self._last, objective=value))

    def fail(self, reason: str) -> None:
        """Send that the trial failed."""
        self._emit(replace(self._last, phase="failed", objective=None, reason=reason))

    def _emit(self, report: TrialReport) -> None:
        # the state of a process after an explosion or an error is unknown: do not reuse it
        retire = report.phase in ("exploded", "failed") or self._leaks
        aside, self._set_aside = "; ".join(self._set_aside), []
        self._last = replace(report, history={}, first_step=None)
        self._send(replace(report, retire_worker=retire, set_aside=aside))

    def _require(self, metrics: Mapping[str, float], epoch: int) -> None:
        value = find_raw_metric(metrics, self._objective.name)
        if value is None or not math.isfinite(value):
            state = "was not measured" if value is None else f"is {value}"
            raise NoObjectiveError(f"{self._objective.metric} {state} at epoch {epoch}")
