"""Progress of a running sweep: a live table with a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweeps.config import SweepSpec
from sweeps.states import ENDED, State
from sweeps.study.study import TrialRecord
from sweeps.trial.messages import TrialEnd, TrialReport, TrialRequest

COLOURS = {
    State.RUNNING: "cyan",
    State.COMPLETED: "green",
    State.PAUSED: "blue",
    State.PRUNED: "yellow",
    State.INFEASIBLE: "red",
    State.FAILED: "bold red",
    State.INTERRUPTED: "dim",
}


@dataclass
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

    @property
    def label(self) -> str:
        """Number and title."""
        return f"{self.number} ({self.title})" if self.title else str(self.number)


class Display:
    """Stores the rows and shows nothing; base of `PlainDisplay` and `LiveDisplay`.

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
        self.earlier = 0
        """Trials that ended or paused in earlier sessions."""

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
            self.earlier += 1

    def on_start(self, request: TrialRequest) -> None:
        """A trial began, or continues."""
        new = Row(request.number, request.title, request.parameters)
        row = self.rows.setdefault(request.number, new)
        row.promoted = row.state is State.PAUSED
        row.state = State.RUNNING

    def on_report(self, request: TrialRequest, report: TrialReport) -> None:
        """A trial reported."""
        row = self.rows[request.number]
        row.epoch = max(row.epoch, report.epoch)  # a trial that resumes repeats a report
        if report.best is not None:
            row.value, row.best_epoch = report.best.value, report.best.epoch
        row.peak_norm = row.peak_norm if report.peak_norm is None else report.peak_norm

    def on_retry(self, request: TrialRequest) -> None:
        """A trial ran out of memory and starts again."""
        self.rows[request.number].retried = True

    def on_end(self, end: TrialEnd) -> None:
        """A trial ended or paused."""
        row = self.rows[end.number]
        row.state, row.reason = end.outcome.state, end.outcome.reason
        row.seconds += end.seconds

    def best(self) -> Row | None:
        """The completed trial with the best value."""
        done = [r for r in self.rows.values() if r.state is State.COMPLETED and r.value is not None]
        return max(done, key=lambda r: self.objective.sign * (r.value or 0.0), default=None)

    def done(self) -> float:
        """Trials done; those that run for the first time count by their epochs, others are as good as done."""
        first = [r for r in self.rows.values() if r.state is State.RUNNING and not r.promoted]
        return len(self.rows) - len(first) + sum(row.epoch / self.epochs for row in first)

    def finished(self) -> int:
        """Trials that have ended; paused ones have not."""
        return sum(row.state in ENDED for row in self.rows.values())

    def counts(self) -> str:
        """Number of trials in each state."""
        found = Counter(row.state for row in self.rows.values())
        return ", ".join(f"{found[state]} {state}" for state in State if found[state])


class PlainDisplay(Display):
    """One line for each trial that pauses, ends or is retried; for logs and pipes."""

    def _position(self) -> str:
        """How far the sweep is."""
        ended = self.finished()
        if any(row.state is State.PAUSED for row in self.rows.values()):
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


class LiveDisplay(Display):
    """A live table with a progress bar below it."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._began = time.monotonic()
        self._live = Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Display:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def render(self) -> Group:
        """Table and bar."""
        seconds = time.monotonic() - self._began
        bar = Table.grid(padding=(0, 1))
        done = self.done()
        here = done - self.earlier
        left = "" if here < 1 else f", {seconds / here * (self.trials - done):.0f} s left"
        bar.add_row(
            ProgressBar(total=self.trials, completed=done, width=40),
            f"{done:.1f} of {self.trials} {self.noun}s, {seconds:.0f} s{left}",
        )
        return Group(self._table(), Text(self.counts() or "starting the workers", "dim"), bar)

    def _table(self) -> Table:
        rows = self._shown_rows()
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in (self.noun, "state"):
            table.add_column(name)
        for name in ("epoch", self.objective.metric, "peak norm"):
            table.add_column(name, justify="right")
        keys = list(dict.fromkeys(key for row in rows for key in row.parameters))
        for key in keys:
            table.add_column(short_name(key), justify="right")
        best = self.best()
        for row in rows:
            table.add_row(*self._cells(row, keys), style="bold" if row is best else None)
        return table

    def _shown_rows(self) -> list[Row]:
        """As many as the terminal has room for, by number: running ones, the best, complete ones, then the latest."""
        best = self.best()

        def key(row: Row) -> tuple[bool, bool, bool, int]:
            running, complete = row.state is State.RUNNING, row.state is State.COMPLETED
            return not running, row is not best, not complete, -row.number

        room = max(4, self.console.height - 6)
        return sorted(sorted(self.rows.values(), key=key)[:room], key=lambda row: row.number)

    def _cells(self, row: Row, keys: Sequence[str]) -> list[str | Text]:
        return [
            row.label,
            Text(str(row.state) + " (retried)" * row.retried, COLOURS[row.state]),
            f"{row.epoch}/{self.epochs}",
            format_number(row.value, 4),
            format_number(row.peak_norm, 3, significant=True),
            *(format_setting(row.parameters.get(key, "-")) for key in keys),
        ]


def build_display(
    spec: SweepSpec, console: Console, trials: int | None = None, noun: str = "trial"
) -> PlainDisplay | LiveDisplay:
    """The live display on a terminal, the plain one elsewhere; see `Display`."""
    kind = LiveDisplay if console.is_terminal else PlainDisplay
    return kind(spec, console, trials, noun)


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
