"""Progress of a running sweep: its trials as rows, and one line for each end where there is no terminal."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from sweeps.config import SweepSpec
from sweeps.session.norm_curve import NormCurve
from sweeps.states import ENDED, State
from sweeps.study.records import TrialRecord
from sweeps.trial.messages import TrialEnd, TrialReport, TrialRequest


@dataclass(slots=True)
class Row:
    """One trial as shown."""

    number: int
    title: str
    """Shown beside its number."""
    parameters: dict[str, Any]
    epoch: int = 0
    value: float | None = None
    best_epoch: int | None = None
    """Epoch at which `value` was measured."""
    peak_norm: float | None = None
    state: State = State.RUNNING
    reason: str = ""
    retried: bool = False
    promoted: bool = False
    """Whether it has paused before."""
    seconds: float = 0.0
    curve: NormCurve | None = None
    """Of a trial that ran in this session."""
    steps_per_epoch: int = 1

    @property
    def progress(self) -> float:
        """Epochs done, with the fraction of the one that runs."""
        step = 0 if self.curve is None else self.curve.step
        return max(self.epoch, step / self.steps_per_epoch)

    @property
    def label(self) -> str:
        """Number and title."""
        return f"{self.number} ({self.title})" if self.title else str(self.number)


class Display:
    """Stores the rows and shows nothing; base of `PlainDisplay` and of the live table.

    Args:
        spec: of the sweep, or of its confirmation.
        console: to print to.
        trials: number of trials to expect; None for `spec.trials`.
        noun: what a trial is called.
    """

    def __init__(
        self, spec: SweepSpec, console: Console, trials: int | None = None, noun: str = "trial"
    ) -> None:
        self.trials = spec.trials if trials is None else trials
        self.epochs = spec.max_epochs
        self.objective = spec.objective
        self.console, self.noun = console, noun
        self.rows: dict[int, Row] = {}
        self.states: Counter[State] = Counter()
        """Number of rows in each state."""
        self.earlier = 0
        """Trials that ended or paused in earlier sessions."""
        self.latest_explosion: Row | None = None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to close."""

    def add_ended(self, trials: Sequence[TrialRecord]) -> None:
        """Add the trials that ended or paused in earlier sessions."""
        for trial in trials:
            if trial.state not in (*ENDED, State.PAUSED):
                continue
            epoch = trial.best_epoch or 0
            row = Row(trial.number, trial.title, trial.parameters, epoch, trial.value)
            row.best_epoch = trial.best_epoch
            row.state, row.reason, row.seconds = trial.state, trial.reason, trial.seconds
            row.retried = bool(trial.retried)
            self.rows[trial.number] = row
            self.states[row.state] += 1
            self.earlier += 1

    def on_start(self, request: TrialRequest) -> None:
        """A trial began, or continues."""
        if request.number not in self.rows:
            self.rows[request.number] = Row(request.number, request.title, request.parameters)
            self.states[State.RUNNING] += 1
        row = self.rows[request.number]
        row.promoted = row.state is State.PAUSED
        self._change(row, State.RUNNING)
        if row.curve is None:
            row.curve = NormCurve()
            row.steps_per_epoch = request.config.steps_per_epoch

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        """A trial reported."""
        row = self.rows[request.number]
        row.epoch = max(row.epoch, report.epoch)  # a trial that resumes repeats a report
        if report.best is not None:
            row.value, row.best_epoch = report.best.value, report.best.epoch
        row.peak_norm = row.peak_norm if report.peak_norm is None else report.peak_norm
        if row.curve is not None:
            row.curve.add_history(report.history)

    def on_retry(self, request: TrialRequest) -> None:
        """A trial ran out of memory and starts again."""
        self.rows[request.number].retried = True

    def on_end(self, end: TrialEnd) -> None:
        """A trial ended or paused."""
        row = self.rows[end.number]
        self._change(row, end.outcome.state)
        row.reason = end.outcome.reason
        row.seconds += end.seconds
        if row.state is State.INFEASIBLE:
            self.latest_explosion = row

    def _change(self, row: Row, state: State) -> None:
        self.states[row.state] -= 1
        row.state = state
        self.states[state] += 1

    def show_message(self, text: str) -> None:
        """Show one line about the session to the user; called from signal handlers."""
        write_line(text)

    def best(self) -> Row | None:
        """The trial with the best value so far, among those that completed or still can."""
        able = (State.COMPLETED, State.PAUSED, State.RUNNING)
        rows = [r for r in list(self.rows.values()) if r.state in able and r.value is not None]
        return max(rows, key=lambda r: self.objective.sign * (r.value or 0.0), default=None)

    def done(self) -> float:
        """Trials done; those that run for the first time count by their epochs, others are as good as done."""
        rows = list(self.rows.values())
        first = [r for r in rows if r.state is State.RUNNING and not r.promoted]
        return len(rows) - len(first) + sum(min(1.0, r.progress / self.epochs) for r in first)

    def finished(self) -> int:
        """Trials that have ended; paused ones have not."""
        return sum(self.states[state] for state in ENDED)

    def counts(self) -> str:
        """Number of trials in each state."""
        return ", ".join(f"{self.states[state]} {state}" for state in State if self.states[state])


class PlainDisplay(Display):
    """One line for each trial that pauses, ends or is retried; for logs and pipes."""

    def _position(self) -> str:
        """How far the sweep is."""
        ended = self.finished()
        if self.states[State.PAUSED]:
            return f"[{len(self.rows)} begun, {ended} ended, of {self.trials}]"
        return f"[{ended}/{self.trials}]"

    def on_retry(self, request: TrialRequest) -> None:
        super().on_retry(request)
        row = self.rows[request.number]
        print_line(
            self.console,
            f"{self._position()} {self.noun} {row.label} ran out of memory; "
            "it resumes from its last checkpoint, alone",
        )

    def on_end(self, end: TrialEnd) -> None:
        super().on_end(end)
        row = self.rows[end.number]
        best = f" at epoch {row.best_epoch} of {row.epoch}" if row.best_epoch else ""
        value = "" if row.value is None else f", {self.objective.metric} {row.value:.4f}{best}"
        reason = f" ({row.reason})" if row.reason else ""
        print_line(
            self.console,
            f"{self._position()} {self.noun} {row.label} {row.state}{reason}{value}, "
            f"{row.seconds:.0f} s: {format_settings(row.parameters)}",
        )


def write_line(text: str) -> None:
    """Write one line to stderr; safe in a signal handler."""
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\n{text}\n".encode())


def short_name(key: str) -> str:
    """A setting's name for a narrow column."""
    return key.removeprefix("gradient_").removesuffix("_mult").replace("_", " ")


def format_setting(value: Any) -> str:
    """A setting's value in few digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def format_number(value: float | None, digits: int, significant: bool = False) -> str:
    """A measured value, or a dash."""
    if value is None:
        return "-"
    return f"{value:.{digits}g}" if significant else f"{value:.{digits}f}"


def format_settings(parameters: dict[str, Any]) -> str:
    """`name value, name value`."""
    return ", ".join(f"{key} {format_setting(value)}" for key, value in parameters.items())


def print_line(console: Console, text: str) -> None:
    """Print one line without markup, highlighting or wrapping."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
