"""Parts of a session without Ray: a driver on a study, and reports of trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from sweeps.config import SweepSpec
from sweeps.search.promotion import Idle
from sweeps.search.searcher import StudySearcher
from sweeps.search.stopping import StoppingCriteria
from sweeps.session.resume import unfinished
from sweeps.session.sweep import open_study
from sweeps.session.trials import SessionTrials
from sweeps.study.records import to_records
from sweeps.study.store import StudyStore
from sweeps.study.study import baselines_left
from sweeps.trial.messages import BestValue, TrialEnd, TrialReport, TrialRequest
from sweeps.trial.trial import TrialContext


class Recording:
    """A callback that notes what it is told."""

    def __init__(self) -> None:
        self.starts: list[TrialRequest] = []
        self.reports: list[tuple[int, TrialReport]] = []
        self.retries: list[TrialRequest] = []
        self.ends: list[TrialEnd] = []

    def on_start(self, request: TrialRequest) -> None:
        self.starts.append(request)

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        self.reports.append((request.number, report))

    def on_retry(self, request: TrialRequest) -> None:
        self.retries.append(request)

    def on_end(self, end: TrialEnd) -> None:
        self.ends.append(end)


class Driver:
    """One session of a sweep, as far as study and callbacks go; tests play the part of Ray Tune."""

    def __init__(self, spec: SweepSpec, store: StudyStore) -> None:
        self.spec = spec
        self.study = open_study(spec, store)
        self.stopping = StoppingCriteria(spec)
        folder, stall = Path.cwd() / "trials", spec.stall_minutes
        self.context = TrialContext(spec.objective, folder, "x", stall_minutes=stall)
        presets = baselines_left(self.study, spec)
        self.suggestions = spec.trials - len(to_records(self.study.trials)) - len(presets)
        searcher = StudySearcher(
            self.study,
            spec,
            self.context,
            store,
            self.stopping,
            unfinished=[trial.number for trial in unfinished(self.study)],
            presets=presets,
            suggestions=self.suggestions,
        )
        self.told = Recording()
        self.trials = SessionTrials(searcher, self.stopping, [self.told], self.context)

    def start(self) -> TrialRequest:
        """Hand out the next trial, and begin with it."""
        request = self.next()
        assert isinstance(request, TrialRequest)
        return request

    def next(self) -> TrialRequest | Idle:
        """Hand out the next trial, and begin with it; or why there is none."""
        request = self.trials.next_request()
        if isinstance(request, TrialRequest):
            self.trials.on_start(request)
        return request

    def report(self, number: int, report: TrialReport) -> None:
        self.trials.on_report(number, report)

    def end(self, number: int, report: TrialReport) -> None:
        """A trial sends its last report."""
        self.trials.on_report(number, report)
        self.trials.on_end(number, None)

    def pause(self, number: int, epoch: int, value: float) -> None:
        """A trial reaches a rung."""
        self.end(number, report_of(epoch, value, "paused"))

    def trial(self, number: int) -> optuna.trial.FrozenTrial:
        return self.study.trials[number]


def report_of(epoch: int, value: float | None, phase: Any = "running", **more: Any) -> TrialReport:
    """A report whose best epoch is this one."""
    best = None if value is None else BestValue(value, epoch)
    values = {"violation": -2.0, "objective": value, "best": best, "epoch": epoch, **more}
    return TrialReport(phase, **values)


def exploded(epoch: int, violation: float = 0.7, **more: Any) -> TrialReport:
    return report_of(epoch, None, "exploded", reason="bang", violation=violation, **more)
