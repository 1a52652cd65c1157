"""Messages between driver and worker: the request to run a trial, its reports, its end.

All are frozen dataclasses, so that both sides agree on the fields. The `phase` of a report is the state of
its trial as the worker knows it: to Ray Tune a paused trial and a finished one look the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from fsdet.config import TrainConfig
from fsdet.report import FirstStep, Report
from sweeps.states import Outcome, State

Phase = Literal["running", "paused", "final", "exploded", "failed"]


@dataclass(frozen=True)
class TrialRequest:
    """The request to run one trial; all its settings are resolved in the driver."""

    number: int
    """In the study."""
    folder: str
    """Name of its folder in the folder of all trials."""
    run_key: str
    """Tag `sweep.trial` of its run in the tracker."""
    parameters: dict[str, Any]
    """Searched settings, tied ones included."""
    config: TrainConfig
    """All settings, with the paths of the driver's machine."""
    baseline: str | None = None
    """Name of the baseline, if it is one: it is never pruned."""
    title: str = ""
    """Shown beside its number; often empty."""
    tags: dict[str, Any] = field(default_factory=dict)
    """Further tags of its run."""
    retried: str = ""
    """Why it ran out of memory, if it did: it is now retried alone on the machine or the card."""
    last_try: bool = False
    """Whether Ray Tune has restarted it already and will not do so again."""
    until: int | None = None
    """Epoch at which it pauses; None if it runs to its end."""

    @property
    def is_confirmation(self) -> bool:
        """Whether it is a run of a confirmation, which has a key of its own."""
        return self.run_key != str(self.number)

    @property
    def label(self) -> str:
        """For messages: number and title; of a confirmation, whose title names another trial, the title."""
        if self.is_confirmation:
            return self.title
        return f"trial {self.number}" + (f" ({self.title})" if self.title else "")


@dataclass(frozen=True)
class BestValue:
    """The best epoch so far, with the values of its evaluation, or at the end of the last evaluation."""

    value: float | None
    """The objective."""
    epoch: int
    standard_error: float | None = None
    """Of `value`, over episodes."""
    metrics: dict[str, float] = field(default_factory=dict)
    """All metrics of the evaluation that `value` comes from."""


@dataclass(frozen=True)
class TrialReport:
    """Sent by a trial at every evaluation, at an explosion, at an error and at its end."""

    phase: Phase
    step: int = 0
    epoch: int = 0
    objective: float | None = None
    """Value that ranks trials at rungs: the best evaluation so far; None if the trial exploded or failed."""
    best: BestValue | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Finite metrics of this evaluation, by slashed name."""
    history: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Metric -> (steps,) float64, one value for each step since the last report."""
    costs: dict[str, float] = field(default_factory=dict)
    """Seconds of a step and bytes of memory, so far."""
    peak_norm: float | None = None
    """Largest gradient norm so far."""
    violation: float = 0.0
    """log10(peak norm / limit)."""
    reason: str = ""
    """Why the trial exploded or failed."""
    first_step: FirstStep | None = None
    """What the first step of the worker's process used; of the first report after it only."""
    retire_worker: bool = False
    """Whether the worker must not be reused for another trial."""
    set_aside: str = ""
    """Files in the trial's folder from which it does not resume, and why."""


@dataclass(frozen=True)
class TrialEnd:
    """How a trial ended, or paused, in this session."""

    request: TrialRequest
    outcome: Outcome
    value: float | None
    """The objective at the best epoch; None if it was never measured in this session."""
    seconds: float
    """Wall time in this session."""
    report: TrialReport | None
    """The last one; None without any in this session."""

    @property
    def number(self) -> int:
        """Of the trial, in the study."""
        return self.request.number


class TrialCallback(Protocol):
    """Called in the driver when a trial starts, reports, is retried or ends."""

    def on_start(self, request: TrialRequest) -> None:
        """A trial began, resumes, or was promoted."""

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        """A trial reported. One that resumes repeats its last report."""

    def on_retry(self, request: TrialRequest) -> None:
        """A trial ran out of memory and is restarted alone."""

    def on_end(self, end: TrialEnd) -> None:
        """A trial ended or paused, or the session ended."""


def outcome_of(last: TrialReport | None, crash: str | None = None) -> Outcome:
    """How a trial ended.

    Args:
        last: its last report; None without any.
        crash: why its worker raised or died; None if it did not.
    """
    if crash is not None:
        return Outcome(State.FAILED, crash)
    if last is None:
        return Outcome(State.FAILED, "ended before its first report")
    match last.phase:
        case "final" if last.best is None or last.best.value is None:
            return Outcome(State.FAILED, "ended without a value of the objective")
        case "final":
            return Outcome(State.COMPLETED)
        case "exploded":
            return Outcome(State.INFEASIBLE, last.reason)
        case "failed":
            return Outcome(State.FAILED, last.reason)
        case "paused":
            return Outcome(State.PAUSED, f"at epoch {last.epoch}")
        case _:
            return Outcome(State.FAILED, f"ended without a last report, at epoch {last.epoch}")


def to_report(report: Report, objective: str) -> TrialReport:
    """The trainer's report as a message.

    The metrics of the last report are those of the last evaluation, which measures the best epoch.

    Args:
        report: of the trainer.
        objective: metric of the objective, without its split.
    """
    reason, found = "", report.explosion
    if found is not None:
        reason = f"step {found.step}, {found.reason} in {found.module}: {found.detail}"
    return TrialReport(
        phase=report.phase,
        step=report.step,
        epoch=report.epoch,
        best=_best(report, objective),
        metrics=finite(report.final or report.metrics),
        history=report.history,
        peak_norm=report.peak_norm,
        violation=report.violation,
        reason=reason,
        first_step=report.first_step,
    )


def _best(report: Report, objective: str) -> BestValue | None:
    if report.best is None:
        return None
    metrics = report.final or report.best.metrics
    value, error = (find_metric(metrics, name) for name in (objective, f"{objective}_se"))
    return BestValue(value, report.best.epoch, error, finite(metrics))


def find_metric(metrics: Mapping[str, float], name: str) -> float | None:
    """The metric `name` on any split; None if it is missing or not finite."""
    found = find_raw_metric(metrics, name)
    return None if found is None or not math.isfinite(found) else float(found)


def find_raw_metric(metrics: Mapping[str, float], name: str) -> float | None:
    """The metric `name` on any split, as it was measured; None if it is missing."""
    return next((v for key, v in metrics.items() if key.rpartition("/")[2] == name), None)


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The finite metrics as floats."""
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
